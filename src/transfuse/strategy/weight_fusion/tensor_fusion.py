"""Weight fusions that work tensor by tensor: a method says how one block is fused, all else is derived.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from transfuse.leaves import LEAF
from transfuse.state_dict import require_list
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.base import Need, WeightFusion, predictions
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.judging import Outputs, best, honest_scores, selection_score, validation_scores
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import Survey, TensorMethod, merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts, take_apart
from transfuse.strategy.weight_fusion.requirements import check_count
from transfuse.types import HyperparameterError, MissingBaseError, NeedsContextError


@dataclass(frozen=True, kw_only=True)
class TensorFusion(WeightFusion):
    """A per-tensor method: an optional reduction over the tensor (`survey`), then a map over its blocks (`fuse_block`).

    Class attributes:
        statistics: whether the method uses what was measured on data.
        masks: whether it takes masks that are handed in.
        whole: the tensor comes as one block; for matrix methods.
        size: elements of the blocks that are fused; it changes no result.
    """

    statistics: ClassVar[Need] = "unused"
    masks: ClassVar[Need] = "unused"
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def survey(self, blocks: Blocks) -> Survey | None:
        """Reads the tensor before it is fused: a few numbers, in float64, for `fuse_block`.

        Args:
            blocks: leaves of 64 Ki elements in element order; can be walked several times. Sums go over
                `transfuse.leaves.pairwise_sum`.
        """
        return None

    @abstractmethod
    def fuse_block(self, block: Block, survey: Survey) -> Tensor:
        """The fused values of one block, (B,), in the block's type; the block is not written to."""

    def coefficients(self, num_models: int) -> tuple[float, ...] | None:
        """The models' shares where the result is a weighted sum of them, for the record; None for other methods."""
        return None

    def measure(self, context: Context, parts: Parts) -> Measured:
        """What the method needs besides weights, measured on development data; nothing by default."""
        return Measured()

    @property
    def searches(self) -> Mapping[str, Sequence[float]]:
        """Field name -> the values that validation data choose from; empty where nothing is searched."""
        return {}

    def resolved(self, context: Context) -> Self:
        """The same method with numbers for all that depends on the run."""
        return self

    def interference(self, context: Context, parts: Parts, measured: Measured) -> dict[str, Any] | None:
        """For the record of a run: what trimming and election do; None for methods that do neither."""
        return None

    def bind(self, tensors: Sequence[Blocks]) -> TensorMethod:
        """The method with what it must know of all tensors before any is fused; itself by default.

        Args:
            tensors: those that are fused, in the first model's order.
        """
        return self

    def merged(
        self,
        state_dicts: Sequence[Mapping[str, Any]],
        base: Mapping[str, Any] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
        masks: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The fused state dict, in the first model's keys, order and types; inputs are not changed.

        BatchNorm's running statistics are averaged by the law of total variance, unless `batch_norm` is `keep`: there
        are no data to measure them on.

        Args:
            state_dicts: K state dicts of tensors or arrays.
            base: what all models started from; not read by methods without a base.
            statistics: one mapping a model.
            masks: one mapping a model.
            seed: of random streams.
            names: of the models for messages; `model 0`, ... by default.

        Raises:
            ModelCountError: too few or too many models.
            MissingBaseError: the method needs a base.
            StateDictMismatch: keys or shapes differ.
            BufferMismatch: integer buffers differ.
            NonFiniteError: a weight is NaN or infinite, before or after the merge.
            StateDictError: what is passed is no list of state dicts.
        """
        require_list(state_dicts, "`state_dicts`")
        check_count(self.name, len(state_dicts), self.least, self.most)
        if self.base == "required" and base is None:
            raise MissingBaseError(
                f"{self.name} needs the weights that all models started from. Pass them as `base`, "
                "or take a method without a base such as uniform_soup."
            )
        if self.searches:
            names = " and ".join(f"{name}=search" for name in self.searches)
            raise NeedsContextError(
                f"{names} needs labelled validation data; state dicts alone do not suffice. Pass numbers, or run "
                f"strategy={self.name}."
            )
        _check_need(self.name, "statistics", self.statistics, statistics is not None)
        _check_need(self.name, "masks", self.masks, masks is not None)
        return merge_state_dicts(
            self,
            state_dicts,
            names=names or [f"model {index}" for index in range(len(state_dicts))],
            base=None if self.base == "unused" else base,
            measured=Measured(statistics=statistics, masks=masks),
            seed=seed,
            batch_norm="keep" if self.batch_norm == "keep" else "average",
            selection=self.selection,
        )

    def apply(self, context: Context) -> FusedModel:
        """Fuses the members and judges the result on validation data; searched fields take their best values there."""
        parts = take_apart(context, with_base=self.base != "unused", fuse=self.fuse)
        method = self.resolved(context)
        measured = method.measure(context, parts)
        candidates = [_Candidate.made(tried, context, parts, measured) for tried in method.tries()]
        metric = context.selection_metric
        outputs = [candidate.outputs for candidate in candidates]
        chosen = candidates[best(context, outputs, metric) if len(candidates) > 1 else 0]
        in_sample = validation_scores(context, chosen.outputs)
        diagnostics = describe(context, parts, chosen.fused, chosen.batch_norm)
        num_models = len(parts.members)
        shares = chosen.method.coefficients(num_models)
        searched = {} if len(candidates) == 1 else {"search": _searched(context, method, candidates, chosen)}
        return FusedModel(
            network=chosen.network,
            validation=in_sample if len(candidates) == 1 else honest_scores(context, outputs, metric),
            fit={} if len(candidates) == 1 else in_sample,
            members=tuple(range(num_models)),
            weights=None if shares is None else {task.name: list(shares) for task in context.development.tasks},
            diagnostics={
                **diagnostics,
                "interference": chosen.method.interference(context, parts, measured),
                **searched,
                "verdict": verdict(context, parts, in_sample, diagnostics),
            },
            looks=len(candidates) if len(candidates) > 1 else 0,
        )

    def tries(self) -> list[Self]:
        """The method with each combination of values of its searched fields; itself where nothing is searched."""
        combinations: list[dict[str, Any]] = [
            dict(zip(self.searches, values, strict=True)) for values in itertools.product(*self.searches.values())
        ]
        return [replace(self, **values) for values in combinations]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One merge, and what its network says on the validation split."""

    method: TensorFusion
    fused: Mapping[str, Tensor]
    network: nn.Module
    batch_norm: str
    outputs: Outputs

    @classmethod
    def made(cls, method: TensorFusion, context: Context, parts: Parts, measured: Measured) -> _Candidate:
        fused = method.merged(
            parts.states, parts.base, measured.statistics, measured.masks, seed=context.seed, names=parts.names
        )
        num_fused = len(parts.members) + (parts.base is not None)
        network, batch_norm = method.settle(context, parts, fused, num_fused)
        outputs = predictions(context, network)
        return cls(method=method, fused=fused, network=network, batch_norm=batch_norm, outputs=outputs)


def _searched(
    context: Context, method: TensorFusion, candidates: Sequence[_Candidate], chosen: _Candidate
) -> dict[str, Any]:
    """The values that were tried with their selection scores, and those that were taken."""

    def values(candidate: _Candidate) -> dict[str, float]:
        fields = dataclasses.asdict(candidate.method)
        return {name: fields[name] for name in method.searches}

    metric = context.selection_metric
    tried = [
        {**values(candidate), "score": selection_score(context, candidate.outputs, metric)} for candidate in candidates
    ]
    return {"metric": metric, "tried": tried, "taken": values(chosen)}


def _check_need(name: str, what: str, need: Need, given: bool) -> None:
    if need == "required" and not given:
        raise NeedsContextError(f"{name} needs `{what}`, which are measured on data. Pass one mapping a model.")
    if need == "unused" and given:
        raise HyperparameterError(f"{name} does not use `{what}`. Leave them out.")
