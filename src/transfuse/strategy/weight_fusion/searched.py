"""`weight_fusion/searched`: another weight fusion with the hyper-parameters that do best on validation data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.metrics import higher_is_better
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.cma_es import cma_es
from transfuse.strategy.weight_fusion.base import predictions
from transfuse.strategy.weight_fusion.depth import depth_parts
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.judging import Outputs, best, honest_scores, selection_score, validation_scores
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts, take_apart
from transfuse.strategy.weight_fusion.search_space import ByPart, Value, is_searchable, search_space, with_values
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.wrapping import Wrapping
from transfuse.types import HyperparameterError, NonFiniteError


@dataclass(frozen=True, kw_only=True)
class Searched(Wrapping):
    """The inner method with the best of `trials` sets of hyper-parameters on validation data, by CMA-ES.

    Searched are its float fields (scale, density, t, ...) and its models' weights: for the embedding, each third of
    the depth and the head on their own where that is at most `dimension` numbers, else for the whole network. The
    first trial is the inner method as it is, so the chosen one never scores worse on the whole validation split. The
    scores of the record are those of a choice that is made anew without each fold.

    What is fused, and how BatchNorm's statistics are made, is said by the inner method.

    Attributes:
        inner: a method that works tensor by tensor, with numbers for what it could search itself.
        trials: sets of values that are tried, >= 1; one look at the validation split each.
        dimension: largest number of searched values, >= 1.

    Example:
        >>> Searched(inner=LinearMerge(), trials=20).inner.name
        'weight_fusion/linear'

    Reference:
        Hansen & Ostermeier 2001, Completely derandomized self-adaptation in evolution strategies; for merging models
        Akiba et al. 2024 (2403.13187).
    """

    trials: int = 60
    dimension: int = 12

    def __post_init__(self) -> None:
        if not isinstance(self.inner, TensorFusion):
            raise HyperparameterError(
                f"`inner` should be a weight fusion that works tensor by tensor, such as weight_fusion/linear. "
                f"Found {self.inner.name}."
            )
        if not is_searchable(self.inner):
            raise HyperparameterError(f"`inner` should have numbers that can be searched. Found {self.inner.name}.")
        self._refuse_searches("which are searched here")
        if self.trials < 1:
            raise HyperparameterError(f"`trials` should be >= 1. Found `trials = {self.trials}`.")
        if self.dimension < 1:
            raise HyperparameterError(f"`dimension` should be >= 1. Found `dimension = {self.dimension}`.")

    def apply(self, context: Context) -> FusedModel:
        """Tries, and makes the best anew."""
        assert isinstance(self.inner, TensorFusion), "held when it was built"
        parts = take_apart(context, with_base=self.inner.base != "unused", fuse=self.inner.fuse)
        inner = self.inner.resolved(context)
        search = _Search(context=context, parts=parts, inner=inner, measured=inner.measure(context, parts))
        num_models, metric = len(parts.members), context.selection_metric
        names = dict.fromkeys(search.part_of[key] for key in inner.selection.of(search.part_of))
        space = search_space(inner, num_models, [name for name in _ORDER if name in names], self.dimension)
        tried = self._tried(search, space)
        outputs = [trial.outputs for trial in tried]
        chosen = tried[best(context, outputs, metric)]
        network, fused, batch_norm = search.network(chosen.values)
        in_sample = validation_scores(context, chosen.outputs)
        diagnostics = describe(context, parts, fused, batch_norm)
        return FusedModel(
            network=network,
            validation=honest_scores(context, outputs, metric),
            fit=in_sample,
            members=tuple(range(num_models)),
            diagnostics={
                **diagnostics,
                "search": {
                    "metric": metric,
                    "tried": [{**trial.record, "score": trial.score} for trial in tried],
                    "taken": chosen.record,
                },
                "verdict": verdict(context, parts, in_sample, diagnostics),
            },
            looks=len(tried),
        )

    def _tried(self, search: _Search, space: Sequence[Value]) -> list[_Trial]:
        """All trials that the inner method took; the first is the inner method as it is."""
        metric = search.context.selection_metric
        sign = -1.0 if higher_is_better(metric) else 1.0
        tried = [search.trial({value: value.default for value in space})]

        def objective(position: tuple[float, ...]) -> float | None:
            values = {value: value.at(at) for value, at in zip(space, position, strict=True)}
            if any(position):
                try:
                    tried.append(search.trial(values))
                except (HyperparameterError, NonFiniteError):
                    return None
            score = sign * tried[-1].score
            return score if math.isfinite(score) else None

        if space:
            seed = derive_seed(search.context.seed, self.name)
            cma_es(objective, dimension=len(space), trials=self.trials, seed=seed)
        return tried


_ORDER = ("embedding", "early", "middle", "late", "head")


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Values, and what their network says on the validation split."""

    values: Mapping[Value, float]
    outputs: Outputs
    score: float

    @property
    def record(self) -> dict[str, float]:
        return {value.name: number for value, number in self.values.items()}


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Makes networks of the inner method with other values."""

    context: Context
    parts: Parts
    inner: TensorFusion
    measured: Measured

    @property
    def part_of(self) -> dict[str, str]:
        """Key -> part of the network."""
        return depth_parts(self.parts.members[0].network(), list(self.parts.states[0]))

    def network(self, values: Mapping[Value, float]) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The network, its fused tensors, and how its running statistics were made."""
        parts, inner, part_of = self.parts, self.inner, self.part_of
        methods = {
            part: with_values(inner, values, len(parts.members), part) for part in dict.fromkeys(part_of.values())
        }
        fused = merge_state_dicts(
            ByPart(methods=methods, part_of=part_of),
            parts.states,
            names=parts.names,
            base=parts.base,
            measured=self.measured,
            seed=self.context.seed,
            batch_norm="keep" if inner.batch_norm == "keep" else "average",
            selection=inner.selection,
        )
        network, batch_norm = inner.settle(self.context, parts, fused, len(parts.members) + (parts.base is not None))
        return network, fused, batch_norm

    def trial(self, values: Mapping[Value, float]) -> _Trial:
        """One look at the validation split."""
        network, _, _ = self.network(values)
        outputs = predictions(self.context, network)
        score = selection_score(self.context, outputs, self.context.selection_metric)
        return _Trial(values=values, outputs=outputs, score=score)
