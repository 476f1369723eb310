"""`output_fusion/temperature_scaled`: another strategy of output fusion, calibrated.

Dimensions in tensor names: M members, N examples, C classes (labels), E events with O outcomes (see `predictions`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.conformity import under
from transfuse.metrics.temperature import BOUND, optimal_temperature
from transfuse.strategy.output_fusion.average import Average
from transfuse.strategy.output_fusion.base import OutputFusion, fused_outputs
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.cross_fitted import cross_fitted
from transfuse.strategy.output_fusion.features import Reads
from transfuse.strategy.predictions import Predictions, log_outcomes
from transfuse.types import Development, EmptyTaskError, HyperparameterError, TaskKind


class Tempered(Combiner):
    """`softmax(z / T)` of an inner combiner's logits z, which sees the members' logits divided by their own T_m.

    Args:
        inner: fuses; its weights and diagnostics are these.
        temperatures_M: (M,) > 0.
        temperature: > 0.
        diagnostics: more of them.
    """

    temperatures: Tensor
    temperature: Tensor

    def __init__(
        self, inner: Combiner, *, temperatures_M: Tensor, temperature: float, diagnostics: dict[str, float]
    ) -> None:
        weights = None if inner.weights is None else inner.weights.clone()
        super().__init__(inner.kind, weights=weights, diagnostics={**inner.diagnostics, **diagnostics})
        self.inner = inner
        self.register_buffer("temperatures", temperatures_M)
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float64))

    @property
    def reads(self) -> Reads:
        """What the inner one reads."""
        return self.inner.reads

    @property
    def unused(self) -> frozenset[int]:
        """Those of the inner one."""
        return self.inner.unused

    def forward(self, logits_MNC: Tensor, features_NF: Tensor | None = None) -> Tensor:
        """Calibrated logits (N, C)."""
        dtype = logits_MNC.dtype
        fused_NC: Tensor = self.inner(logits_MNC / self.temperatures.to(dtype)[:, None, None], features_NF)
        tempered_NC = fused_NC / self.temperature.to(dtype)
        return tempered_NC.log_softmax(dim=-1) if self.kind == "classification" else tempered_NC


@dataclass(frozen=True, kw_only=True)
class TemperatureScaled(OutputFusion):
    """`p_T = softmax(log p / T)` of the fused prediction, of the members, or of both; T has the lowest validation NLL.

    Calibrated members do not make a calibrated average: it is less confident than they are. Hence the default `fused`.
    A temperature of the fused prediction never changes which class is the most likely one. Multi-label: one T for all
    labels.

    Attributes:
        inner: the strategy whose prediction is calibrated.
        where: `fused`, `members` (one temperature each, before fusing) or `both`.
        accept: `always`, or `if_better`: all temperatures stay 1 unless they lower the NLL on examples that neither
            they nor the inner strategy were fitted to (5 folds, which fit the inner strategy 5 times more).

    Reference:
        Guo et al. 2017 (1706.04599); Rahaman & Thiery 2021 (2007.08792); Wu & Gales 2021 (2101.05397).
    """

    inner: OutputFusion = field(default_factory=Average)
    where: Literal["fused", "members", "both"] = "fused"
    accept: Literal["always", "if_better"] = "if_better"

    def __post_init__(self) -> None:
        if not self.kinds:
            raise HyperparameterError(
                f"`inner` should fuse probabilities. Found {self.inner.name}, for regression only."
            )
        if self.where not in ("fused", "members", "both"):
            raise HyperparameterError(f"`where` should be fused, members or both. Found `where = {self.where}`.")
        if self.accept not in ("always", "if_better"):
            raise HyperparameterError(f"`accept` should be always or if_better. Found `accept = {self.accept}`.")

    @property
    def fitted(self) -> bool:
        """Always."""
        return True

    @property
    def fit_on(self) -> Literal["validation", "out_of_fold"]:
        """What the inner strategy is fitted on."""
        return self.inner.fit_on

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities that the inner strategy fuses."""
        return self.inner.kinds - {"regression"}

    @property
    def reads(self) -> Reads:
        """What the inner strategy reads."""
        return self.inner.reads

    def check(self, development: Development, base_models: Description) -> None:
        """The inner strategy must fit too."""
        super().check(development, base_models)
        with under("inner"):
            self.inner.check(development, base_models)

    def combine(self, predictions: Predictions) -> Tempered:
        """The inner strategy's combiner with temperatures."""
        if self.accept == "always" or self._helps(predictions):
            return self._tempered(predictions)
        ones_M = torch.ones(predictions.num_members, dtype=torch.float64)
        plain = self.inner.combine(predictions).eval()
        return Tempered(plain, temperatures_M=ones_M, temperature=1.0, diagnostics={"fusion/temperature": 1.0})

    def _helps(self, predictions: Predictions) -> bool:
        """Whether temperatures lower the cross-fitted NLL."""

        def both(part: Predictions) -> tuple[Combiner, Combiner]:
            tempered = self._tempered(part)
            return tempered, tempered.inner if self.where == "fused" else self.inner.combine(part)

        tempered, plain = cross_fitted(both, predictions, who="temperature_scaled").scores("nll").tolist()
        return bool(tempered < plain)

    def _tempered(self, predictions: Predictions) -> Tempered:
        outcomes_E = predictions.outcomes_E
        known_E = outcomes_E >= 0
        if not known_E.any():
            raise EmptyTaskError("temperature_scaled needs at least one labelled example. Found none.")
        temperatures_M = torch.ones(predictions.num_members, dtype=torch.float64)
        if self.where != "fused":
            found = [optimal_temperature(p_EO[known_E], outcomes_E[known_E]) for p_EO in predictions.log_outcomes_MEO]
            temperatures_M = torch.tensor(found, dtype=torch.float64)
        scaled_MNC = predictions.logits_MNC / temperatures_M.to(predictions.logits_MNC.dtype)[:, None, None]
        scaled = replace(predictions, logits_MNC=scaled_MNC)
        inner = self.inner.combine(scaled).eval()
        fused_EO = log_outcomes(fused_outputs(inner, scaled).double(), predictions.kind)[known_E]
        temperature = 1.0 if self.where == "members" else optimal_temperature(fused_EO, outcomes_E[known_E])
        fitted = [*temperatures_M.tolist(), temperature]
        return Tempered(
            inner,
            temperatures_M=temperatures_M,
            temperature=temperature,
            diagnostics={
                "fusion/temperature": temperature,
                **({} if self.where == "fused" else _by_member(temperatures_M)),
                "fusion/temperature_at_bound": float(any(abs(math.log(each)) > BOUND - 1e-6 for each in fitted)),
                "fusion/fit_accuracy": float((fused_EO.argmax(dim=1) == outcomes_E[known_E]).double().mean()),
            },
        )


def _by_member(temperatures_M: Tensor) -> dict[str, float]:
    return {f"fusion/temperature_{member}": value for member, value in enumerate(temperatures_M.tolist())}
