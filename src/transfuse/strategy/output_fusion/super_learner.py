"""`output_fusion/super_learner`: the strategy of output fusion that does best on examples that it did not see.

Dimensions in tensor names: J candidates, M members, N examples, C classes (labels, targets).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from transfuse.base_models.model import Description
from transfuse.conformity import under
from transfuse.strategy.output_fusion.average import Average
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.cross_fitted import cross_fitted
from transfuse.strategy.output_fusion.features import Reads
from transfuse.strategy.output_fusion.inverse_variance import InverseVariance
from transfuse.strategy.output_fusion.least_squares import LeastSquares
from transfuse.strategy.output_fusion.log_pool_optimal import LogPoolOptimal
from transfuse.strategy.output_fusion.logit_average import LogitAverage
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.output_fusion.stacking import Stacking
from transfuse.strategy.output_fusion.weighted_average import WeightedAverage
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import LeastSquaresOptimal, NllOptimal
from transfuse.strategy.weights.base import ALL_KINDS
from transfuse.types import Development, HyperparameterError, TaskKind

_PROBABILITIES = (Average(), LogitAverage(), WeightedAverage(), LogPoolOptimal(), Stacking())
_VALUES = (
    Average(),
    WeightedAverage(weights=LeastSquaresOptimal()),
    InverseVariance(),
    LeastSquares(constraint="nonnegative"),
    Stacking(),
)


class Mixture(Combiner):
    """`p = sum_j v_j p_j` of the predictions of J combiners; for regression of their values. `weights` is None.

    Args:
        combiners: J of them.
        shares_J: (J,) > 0, summing to 1.
        diagnostics: for the record.
    """

    def __init__(self, combiners: Sequence[Combiner], *, shares_J: Tensor, diagnostics: dict[str, float]) -> None:
        super().__init__(combiners[0].kind, diagnostics=diagnostics)
        self.combiners = nn.ModuleList(combiners)
        self.pool = LinearPool(self.kind, weights=shares_J)

    @property
    def reads(self) -> Reads:
        """What those read that read more than outputs."""
        return _common([combiner.reads for combiner in self.combiners if isinstance(combiner, Combiner)])

    @property
    def unused(self) -> frozenset[int]:
        """Members that none listens to."""
        return frozenset.intersection(*(each.unused for each in self.combiners if isinstance(each, Combiner)))

    def forward(self, logits_MNC: Tensor, features_NF: Tensor | None = None) -> Tensor:
        """The mixture's logits (N, C)."""
        outputs_JNC = torch.stack([combiner(logits_MNC, features_NF) for combiner in self.combiners])
        fused_NC: Tensor = self.pool(outputs_JNC)
        return fused_NC


@dataclass(frozen=True, kw_only=True)
class SuperLearner(OutputFusion):
    """The candidate with the lowest cross-fitted NLL (regression: squared error), or the best mixture of them.

    Five folds of the fit data: each candidate is fitted to four and judged on the fifth. What is returned is fitted
    anew to all of them.

    Attributes:
        candidates: strategies of output fusion, at least one; None for five of the task's kind: averages of
            probabilities and logits, optimal weights, the optimal logarithmic pool and stacking; for regression the
            average, optimal weights, inverse variances, least squares without a negative weight and stacking.
        discrete: whether to return the best candidate (the first of equals), or else the mixture of candidates, with
            weights on the simplex, that is best on the held-out examples.

    Reference:
        van der Laan, Polley & Hubbard 2007, Super learner.
    """

    candidates: Sequence[OutputFusion] | None = None
    discrete: bool = True

    def __post_init__(self) -> None:
        if self.candidates is None:
            return
        if not isinstance(self.candidates, (list, tuple)) or not self.candidates:
            raise HyperparameterError(
                f"`candidates` should be a list of one or more strategies. Found `candidates = {self.candidates!r}`."
            )
        for candidate in self.candidates:
            if not isinstance(candidate, OutputFusion):
                raise HyperparameterError(
                    f"`candidates` should be strategies of output fusion. Found `candidates = {candidate!r}`."
                )
        object.__setattr__(self, "candidates", tuple(self.candidates))
        if not self.kinds:
            each = ", ".join(f"{each.name} for {' and '.join(sorted(each.kinds))}" for each in self.candidates)
            raise HyperparameterError(f"`candidates` should share a kind of task. Found {each}.")
        _require_one("features", {candidate.reads for candidate in self.candidates} - {"outputs"})
        _require_one("fit_on", {candidate.fit_on for candidate in self.candidates})
        _require_one("members", {candidate.members for candidate in self.candidates})

    @property
    def fitted(self) -> bool:
        """Always: the choice reads labels."""
        return True

    @property
    def fit_on(self) -> Literal["validation", "out_of_fold"]:
        """What the candidates are fitted on."""
        return self._listed[0].fit_on

    @property
    def members(self) -> Literal["refit", "folds"]:
        """Whose predictions the candidates fuse."""
        return self._listed[0].members

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds that every candidate fuses."""
        if self.candidates is None:
            return ALL_KINDS
        return frozenset.intersection(*(candidate.kinds for candidate in self.candidates))

    @property
    def instead(self) -> str:
        """A hint at the candidates."""
        return "strategy.candidates that all fuse it"

    @property
    def reads(self) -> Reads:
        """What those candidates read that read more than outputs."""
        return _common([candidate.reads for candidate in self._listed])

    @property
    def _listed(self) -> Sequence[OutputFusion]:
        return _PROBABILITIES if self.candidates is None else self.candidates

    def _of(self, kind: TaskKind) -> Sequence[OutputFusion]:
        """The candidates for tasks of this kind."""
        return _VALUES if self.candidates is None and kind == "regression" else self._listed

    def check(self, development: Development, base_models: Description) -> None:
        """Every candidate must fit; the default ones fit where this does."""
        super().check(development, base_models)
        for index, candidate in enumerate(self.candidates or ()):
            with under(f"candidates.{index}"):
                candidate.check(development, base_models)

    def combine(self, predictions: Predictions) -> Combiner:
        """The best candidate's combiner, or the mixture."""
        candidates = self._of(predictions.kind)
        held_out = cross_fitted(
            lambda part: [candidate.combine(part) for candidate in candidates], predictions, who="super_learner"
        )
        regression = predictions.kind == "regression"
        losses_J = held_out.scores("rmse" if regression else "nll")
        names = [f"{index}_{each.name.rpartition('/')[2]}" for index, each in enumerate(candidates)]
        found = {f"fusion/held_out_{name}": loss for name, loss in zip(names, losses_J.tolist(), strict=True)}
        best = int(losses_J.argmin())
        if self.discrete:
            combiner = candidates[best].combine(predictions)
            combiner.diagnostics |= {**found, "fusion/chosen": float(best)}
            return combiner
        rule = LeastSquaresOptimal() if regression else NllOptimal()
        shares_J = rule.weights(held_out).checked("super_learner").values_M
        found |= {f"fusion/share_{name}": share for name, share in zip(names, shares_J.tolist(), strict=True)}
        inside = shares_J.nonzero().flatten()
        combiners = [candidates[index].combine(predictions).eval() for index in inside.tolist()]
        return Mixture(combiners, shares_J=shares_J[inside], diagnostics=found)


def _require_one(field: str, found: Set[str]) -> None:
    if len(found) > 1:
        raise HyperparameterError(f"`candidates` should agree in `{field}`. Found {' and '.join(sorted(found))}.")


def _common(reads: Sequence[Reads]) -> Reads:
    """The only one besides `outputs`, or that."""
    return next((each for each in reads if each != "outputs"), "outputs")
