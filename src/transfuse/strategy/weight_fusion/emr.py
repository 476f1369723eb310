"""`weight_fusion/emr`: one unified task vector, and for each task a mask and a scale that make it the task's own.

Dimensions in tensor names: K models, B elements of a block, P fused elements, L tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.leaves import LEAF, pairwise_sum
from transfuse.state_dict import StateDict, batch_norm_statistics, tied_keys
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.base import Need, WeightFusion, predictions
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.election import elect_and_merge
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts, take_apart
from transfuse.strategy.weight_fusion.selection import Selection
from transfuse.strategy.weight_fusion.task_conditional import TaskConditional
from transfuse.strategy.weight_fusion.trimming import task_vectors
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, ProblemKind

Count = Literal["elements", "tensors"]


def unify(deltas_KB: Tensor) -> Tensor:
    """u: per element the task vector of largest magnitude among those of the elected sign, (B,).

    Example:
        >>> unify(torch.tensor([[3.0, -1.0], [1.0, -2.0], [-2.0, 2.0]]))
        tensor([ 3., -2.])
    """
    return elect_and_merge(deltas_KB, (1.0,) * len(deltas_KB), merge="max")


def own_mask(delta: Tensor, unified: Tensor) -> Tensor:
    """m_t = [d_t u > 0]: where the task vector has the unified sign; booleans of its shape."""
    return delta.sign() * unified.sign() > 0


def rescaler(deltas_L: Sequence[Tensor], unified_L: Sequence[Tensor], *, count: Count = "elements") -> float:
    """r_t = sum |d_t| / sum |m_t u|; 1 where the mask is empty.

    Args:
        deltas_L: the task vector, tensor by tensor.
        unified_L: the unified vector.
        count: sums over all `elements` (the paper), or of the means of `tensors` (its published code).

    Example:
        >>> rescaler([torch.tensor([1.0, -2.0])], [torch.tensor([4.0, 4.0])])
        0.75
    """
    pairs = [
        torch.stack([_size(delta, count), _size(unified * own_mask(delta, unified), count)])
        for delta, unified in zip(deltas_L, unified_L, strict=True)
        if delta.numel() > 0
    ]
    own, masked = pairwise_sum([torch.zeros(2, dtype=torch.float64), *pairs]).tolist()
    return own / masked if masked > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class EMRMerging(WeightFusion):
    """Not one network: task t's backbone is `b + r_t m_t u`, rebuilt when the network is asked for task t.

    Elect: u = the d_i of largest magnitude among those with the sign of `sum_i d_i`. Mask: m_t = [d_t u > 0]. Rescale:
    r_t = sum |d_t| / sum |m_t u|. For multi-task problems with one model a task: which weights to use must be known
    at inference. The cost counts P + T P / 32 parameters for P fused ones: one set of weights and one bit a task.

    Attributes:
        count: what the sums of r_t go over: `elements` (the paper) or the means of `tensors` (its published code).

    Reference:
        Huang et al. 2024, "EMR-Merging: tuning-free high-performance model merging", 2405.17461, algorithm 1.
    """

    needs: ClassVar[str] = "a network that holds one set of weights a task, which one state dict cannot hold"
    instead: ClassVar[str] = "ties"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})
    base: ClassVar[Need] = "required"
    least: ClassVar[int] = 2

    count: Count = "elements"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count not in ("elements", "tensors"):
            raise HyperparameterError(f"`count` should be elements or tensors. Found `count = {self.count}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """Models must belong to tasks."""
        super().check(development, base_models)
        if len({member.tasks for member in base_models.members}) == 1:
            raise IncompatibleStrategyError(
                f"{self.name} rebuilds the weights of one model a task. Found models of the same tasks "
                f"({', '.join(base_models.members[0].tasks)}). Did you mean base_models=per_task?"
            )

    def apply(self, context: Context) -> FusedModel:
        """Compresses the task vectors; nothing is trained or selected."""
        parts = take_apart(context, with_base=True, fuse=self.fuse)
        assert parts.base is not None, "the base is required"
        start = merge_state_dicts(
            _Unify(),
            parts.states,
            names=parts.names,
            base=parts.base,
            batch_norm="keep" if self.batch_norm == "keep" else "average",
            selection=self.selection,
        )
        keys = _fused_keys(parts, self.selection)
        deltas_KL = [[state[key] - parts.base[key] for key in keys] for state in parts.states]
        unified_L = [start[key] for key in keys]
        rescalers = [rescaler(deltas_L, unified_L, count=self.count) for deltas_L in deltas_KL]
        masks_TP = torch.stack([_flat(map(own_mask, deltas_L, unified_L)) for deltas_L in deltas_KL])
        network = TaskConditional(
            parts.network(start | {key: parts.base[key] for key in keys}),
            keys=keys,
            unified_P=_flat(unified_L),
            masks_TP=masks_TP,
            rescalers_T=torch.tensor(rescalers, device=masks_TP.device),
            owners=parts.heads,
        ).eval()
        batch_norm = self._measure(context, parts, network, start)
        in_sample = validation_scores(context, predictions(context, network))
        diagnostics = describe(context, parts, {key: start[key] for key in keys}, batch_norm)
        return FusedModel(
            network=network,
            validation=in_sample,
            members=tuple(range(len(parts.members))),
            diagnostics={
                **diagnostics,
                "needs": "task id at inference",
                "rescalers": rescalers,
                "kept_share": masks_TP.double().mean(dim=1).tolist(),
                "verdict": verdict(context, parts, in_sample, diagnostics),
            },
        )

    def _measure(self, context: Context, parts: Parts, network: TaskConditional, start: StateDict) -> str:
        """Gives each set of weights the running statistics that belong to it; how they were made."""
        made = "none"
        for owner in range(len(parts.members)):
            settled, made = self.settle(context, parts, {**start, **network.weights(owner)}, len(parts.members) + 1)
            network.take_statistics(owner, settled.state_dict())
        return made


@dataclass(frozen=True, kw_only=True)
class _Unify:
    """`unify` as a per-tensor method."""

    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> _Unify:
        """Needs to know nothing."""
        return self

    def survey(self, blocks: Iterable[Block]) -> None:
        """Nothing to measure."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The unified task vector, without the base, (B,)."""
        return unify(task_vectors(block))


def _fused_keys(parts: Parts, selection: Selection) -> list[str]:
    """What the masks go over: chosen floating tensors, tied ones once, no running statistics."""
    first = parts.states[0]
    means = batch_norm_statistics(first)
    left_out = {*tied_keys([*parts.states, parts.base or {}]), *means, *means.values()}
    chosen = selection.of(first) - left_out
    return [key for key, value in first.items() if key in chosen and value.is_floating_point()]


def _flat(tensors_L: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors_L])


def _size(values: Tensor, count: Count) -> Tensor:
    magnitudes = values.abs().double()
    return magnitudes.sum() if count == "elements" else magnitudes.mean()
