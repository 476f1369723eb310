"""The merge itself: every tensor of K state dicts through a per-tensor method.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.state_dict import (
    StateDict,
    as_tensors,
    batch_norm_statistics,
    check_finite,
    check_same_layout,
    compute_dtype,
    copy_buffer,
    tied_keys,
)
from transfuse.strategy.weight_fusion.batch_norm import average_statistics
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.requirements import HeadMismatchError
from transfuse.strategy.weight_fusion.selection import HEADS, Selection
from transfuse.types import NonFiniteError, StateDictMismatch

# A few numbers of one tensor (a threshold, a Gram matrix, a norm); each method has a type of its own.
Survey = Any


class TensorMethod(Protocol):
    """What the merge asks of a per-tensor method."""

    @property
    def whole(self) -> bool:
        """Whether the method takes the whole tensor as one block."""

    @property
    def size(self) -> int:
        """Elements of the blocks that are fused."""

    def bind(self, tensors: Sequence[Blocks]) -> TensorMethod:
        """The method with what it must know of all tensors."""

    def survey(self, blocks: Blocks) -> Survey | None:
        """Reads the tensor before it is fused."""

    def fuse_block(self, block: Block, survey: Survey) -> Tensor:
        """The fused block, (B,)."""


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """sum_i w_i x_i / divisor as a per-tensor method: where methods that choose coefficients end.

    Attributes:
        weights_K: one weight a model.
        divisor: of the sum.
    """

    weights_K: tuple[float, ...]
    divisor: float = 1.0
    whole: ClassVar[bool] = False
    size: ClassVar[int] = WIDE

    def bind(self, tensors: Sequence[Blocks]) -> WeightedSum:
        """Needs to know nothing."""
        return self

    def survey(self, blocks: Iterable[Block]) -> None:
        """Nothing to measure."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The weighted sum of the models' values, (B,)."""
        return weighted_sum(block.rows_K, self.weights_K, self.divisor, out=block.out_B)


def weighted_sum(
    rows_K: Sequence[Tensor] | Tensor, weights_K: Sequence[float], divisor: float = 1.0, *, out: Tensor | None = None
) -> Tensor:
    """sum_i w_i x_i / divisor, models in list order.

    Equal weights divide the sum at the end: a mean of bf16 values that lies exactly between two of them is then rounded
    as the exact mean is, which products with 1/3 would miss. Others take a product and a sum each, both rounded: fused
    multiply-adds miss more of such ties.

    Args:
        rows_K: K tensors (B,).
        weights_K: K weights.
        divisor: not 0; the sum of the weights for a mean.
        out: (B,) where to write it.

    Returns:
        (B,) of the rows' type: `out`, or new.

    Example:
        >>> weighted_sum(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (1.0, 1.0), 2.0)
        tensor([2., 3.])
    """
    first = weights_K[0]
    if len(rows_K) > 1 and first != 0 and all(weight == first for weight in weights_K):
        total_B = torch.add(rows_K[0], rows_K[1], out=out)
        for values_B in rows_K[2:]:
            total_B += values_B
        divisor /= first
    else:
        total_B = torch.mul(rows_K[0], first, out=out)
        term_B = torch.empty_like(total_B)
        for values_B, weight in zip(rows_K[1:], weights_K[1:], strict=True):
            total_B += torch.mul(values_B, weight, out=term_B)
    return total_B if divisor == 1.0 else total_B.div_(divisor)


@torch.no_grad()
def merge_state_dicts(
    method: TensorMethod,
    state_dicts: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    base: Mapping[str, Any] | None = None,
    measured: Measured | None = None,
    seed: int = 0,
    batch_norm: Literal["average", "keep"] = "average",
    selection: Selection | None = None,
    size: int | None = None,
) -> dict[str, Tensor]:
    """Merges K state dicts of one layout, tensor by tensor.

    Args:
        method: what computes a block of the result.
        state_dicts: K >= 1 state dicts of tensors or arrays; their order is the order of the models.
        names: of the models, for messages.
        base: what all models started from, for methods that use it.
        measured: statistics and masks, for methods that use them.
        seed: of the methods' random streams.
        batch_norm: running statistics: averaged by the law of total variance, or kept from the base or first model.
        selection: which tensors are fused; all others come from the base, else from the first model.
        size: elements a block; it changes no result. None: the method's choice.

    Returns:
        Key -> tensor in the first model's keys, order and types. Shares no storage with any input.

    Raises:
        StateDictMismatch: keys or shapes differ.
        BufferMismatch: integer buffers differ.
        NonFiniteError: a weight is NaN or infinite, or becomes so by the merge.
        HyperparameterError: a pattern of the selection matches nothing.
    """
    selection = selection or Selection()
    named = [*names, *([] if base is None else ["base"])]
    states = _of_one_layout([*state_dicts, *([] if base is None else [base])], named, heads=selection.heads)
    chosen = selection.of(states[0])
    measured = (measured or Measured()).checked(states[0], len(names), whole=method.whole)
    ties = tied_keys(states)
    means = batch_norm_statistics(states[0])
    merged: dict[str, Tensor] = {}
    fused: list[Blocks] = []
    for key in (key for key in states[0] if key not in ties):
        values = [state[key] for state in states]
        if not values[0].is_floating_point():
            merged[key] = copy_buffer(values[: len(names)], key, names)
            continue
        check_finite(values, key, named)
        if key in means or key in means.values() or key not in chosen:
            merged[key] = _copy(values[0 if base is None else -1], values[0].dtype)
        else:
            fused.append(_blocks(key, values, len(names), measured, seed, method.whole))
    bound = method.bind(fused)
    merged |= {blocks.key: _merge_tensor(bound, blocks, size) for blocks in fused}
    if batch_norm == "average":
        averaged = {key: means[key] for key in means if key not in ties and key in chosen}
        merged |= average_statistics(states[: len(names)], averaged)
    _check_merged(merged)
    return {key: merged[ties.get(key, key)] for key in states[0]}


def _heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(HEADS)}


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(HEADS)}


def _of_one_layout(state_dicts: Sequence[Mapping[str, Any]], names: Sequence[str], *, heads: bool) -> list[StateDict]:
    """The state dicts as tensors, with equal keys and shapes; without `heads` all have the first one's heads."""
    states: list[StateDict] = [as_tensors(state, name) for state, name in zip(state_dicts, names, strict=True)]
    if not heads:
        states = [states[0], *(_backbone(state) | _heads(states[0]) for state in states[1:])]
    try:
        check_same_layout(states, names)
    except StateDictMismatch as error:
        check_same_layout([_backbone(state) for state in states], names)
        raise HeadMismatchError(f"{error} Only heads differ: did you mean fuse=backbone?") from None
    return states


def _check_merged(merged: StateDict) -> None:
    for key, value in merged.items():
        if not value.is_floating_point():
            continue
        try:
            check_finite([value], key, ["the merged model"])
        except NonFiniteError as error:
            dtype = str(value.dtype).removeprefix("torch.")
            raise NonFiniteError(f"{error} The inputs are finite: the result is too large for {dtype}.") from None


def _copy(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).clone(memory_format=torch.contiguous_format)


def _blocks(key: str, values: Sequence[Tensor], num_models: int, measured: Measured, seed: int, whole: bool) -> Blocks:
    statistics, masks = measured.entries(key)
    return Blocks(
        key=key,
        values_K=tuple(values[:num_models]),
        base=values[num_models] if len(values) > num_models else None,
        dtype=compute_dtype(values),
        seed=seed,
        statistics=statistics,
        masks=masks,
        whole=whole,
    )


def _merge_tensor(method: TensorMethod, blocks: Blocks, size: int | None) -> Tensor:
    first = blocks.values_K[0]
    fused = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    if first.numel() > 0:
        survey = method.survey(blocks)  # always over leaves, so that its sums do not depend on `size`
        flat = fused.view(-1)
        for block in replace(blocks, size=size or method.size, out=flat if flat.dtype == blocks.dtype else None):
            fused_B = method.fuse_block(block, survey)
            if fused_B is not block.out_B:
                flat[block.offset : block.offset + len(block)] = fused_B
    return fused
