"""`output_fusion/temperature_scaled`: another strategy of output fusion, calibrated.

Dimensions in tensor names: M members, N examples, C classes (labels), E events with O outcomes (see `predictions`).
"""

from __future__ import annotations

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
        temperatures: (M,) > 0, one a member, or (M, C), one a member and label.
        temperature: () > 0, or (C,), one a label; both are float64.
        diagnostics: more of them.
    """

    temperatures: Tensor
    temperature: Tensor

    def __init__(
        self, inner: Combiner, *, temperatures: Tensor, temperature: Tensor, diagnostics: dict[str, float]
    ) -> None:
        weights = None if inner.weights is None else inner.weights.clone()
        super().__init__(inner.kind, weights=weights, diagnostics={**inner.diagnostics, **diagnostics})
        self.inner = inner
        self.register_buffer("temperatures", temperatures)
        self.register_buffer("temperature", temperature)

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
        fused_NC: Tensor = self.inner(_divided(logits_MNC, self.temperatures), features_NF)
        tempered_NC = fused_NC / self.temperature.to(logits_MNC.dtype)
        return tempered_NC.log_softmax(dim=-1) if self.kind == "classification" else tempered_NC


@dataclass(frozen=True, kw_only=True)
class TemperatureScaled(OutputFusion):
    """`p_T = softmax(log p / T)` of the fused prediction, of the members, or of both; T has the lowest validation NLL.

    Calibrated members do not make a calibrated average: it is less confident than they are. Hence the default `fused`.
    A temperature of the fused prediction never changes which class is the most likely one. Multi-label: one T for all
    labels, or one a label, which then has the lowest NLL of that label; a label without examples gets the common one.

    Attributes:
        inner: the strategy whose prediction is calibrated.
        where: `fused`, `members` (one temperature each, before fusing) or `both`.
        accept: `always`, or `if_better`: all temperatures stay 1 unless they lower the NLL on examples that neither
            they nor the inner strategy were fitted to (5 folds, which fit the inner strategy 5 times more).
        per_label: whether each label has temperatures of its own; multi-label tasks only.

    Reference:
        Guo et al. 2017 (1706.04599); Rahaman & Thiery 2021 (2007.08792); Wu & Gales 2021 (2101.05397).
    """

    inner: OutputFusion = field(default_factory=Average)
    where: Literal["fused", "members", "both"] = "fused"
    accept: Literal["always", "if_better"] = "if_better"
    per_label: bool = False

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
    def members(self) -> Literal["refit", "folds"]:
        """Whose predictions the inner strategy fuses."""
        return self.inner.members

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities that the inner strategy fuses; label sets only, where each label has its own T."""
        return self.inner.kinds - ({"regression", "classification"} if self.per_label else {"regression"})

    @property
    def instead(self) -> str:
        """What scales the temperature of classes."""
        return "strategy.per_label=false" if self.per_label else self.inner.instead

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
        diagnostics = {"fusion/temperature": 1.0}
        return Tempered(plain, temperatures=ones_M, temperature=torch.ones_like(ones_M[0]), diagnostics=diagnostics)

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
        temperatures = torch.ones(predictions.num_members, dtype=torch.float64)
        if self.where != "fused":
            temperatures = torch.stack(
                [self._optimal(log_p_EO, predictions) for log_p_EO in predictions.log_outcomes_MEO]
            )
        scaled = replace(predictions, logits_MNC=_divided(predictions.logits_MNC, temperatures))
        inner = self.inner.combine(scaled).eval()
        fused_EO = log_outcomes(fused_outputs(inner, scaled).double(), predictions.kind)
        ones = torch.ones((), dtype=torch.float64)
        temperature = ones if self.where == "members" else self._optimal(fused_EO, predictions)
        at_bound = any(bool((each.log().abs() > BOUND - 1e-6).any()) for each in (temperatures, temperature))
        right_E = fused_EO.argmax(dim=1)[known_E] == outcomes_E[known_E]
        return Tempered(
            inner,
            temperatures=temperatures,
            temperature=temperature,
            diagnostics={
                **_named("fusion/temperature", temperature),
                **({} if self.where == "fused" else _by_member(temperatures)),
                "fusion/temperature_at_bound": float(at_bound),
                "fusion/fit_accuracy": float(right_E.double().mean()),
            },
        )

    def _optimal(self, log_probs_EO: Tensor, predictions: Predictions) -> Tensor:
        """() the temperature of lowest NLL, or (C,) each label's."""
        outcomes_E = predictions.outcomes_E
        common = _optimum(log_probs_EO, outcomes_E)
        if not self.per_label:
            return common
        num_labels = predictions.logits_MNC.shape[2]
        # events are the labels of one example after another
        labels = [slice(label, None, num_labels) for label in range(num_labels)]
        return torch.stack(
            [
                _optimum(log_probs_EO[label], outcomes_E[label]) if bool((outcomes_E[label] >= 0).any()) else common
                for label in labels
            ]
        )


def _optimum(log_probs_EO: Tensor, outcomes_E: Tensor) -> Tensor:
    known_E = outcomes_E >= 0
    return torch.tensor(optimal_temperature(log_probs_EO[known_E], outcomes_E[known_E]), dtype=torch.float64)


def _divided(logits_MNC: Tensor, temperatures: Tensor) -> Tensor:
    """Each member's logits divided by its temperature (M,), or by those of its labels (M, C)."""
    return logits_MNC / temperatures.to(logits_MNC.dtype).reshape(len(temperatures), 1, -1)


def _named(name: str, temperature: Tensor) -> dict[str, float]:
    """One number, or one a label."""
    if temperature.ndim == 0:
        return {name: float(temperature)}
    return {f"{name}_label_{label}": value for label, value in enumerate(temperature.tolist())}


def _by_member(temperatures: Tensor) -> dict[str, float]:
    found: dict[str, float] = {}
    for member, temperature in enumerate(temperatures):
        found |= _named(f"fusion/temperature_{member}", temperature)
    return found
