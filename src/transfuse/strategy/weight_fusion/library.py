"""`transfuse.merge`: weight fusion of state dicts, without configs, data or training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from transfuse.strategy.find import build
from transfuse.types import NeedsContextError


def merge(
    state_dicts: Sequence[Mapping[str, Any]],
    *,
    method: str,
    base: Mapping[str, Any] | None = None,
    statistics: Sequence[Mapping[str, Any]] | None = None,
    masks: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
    **fields: Any,
) -> dict[str, Tensor]:
    """Merges state dicts of one architecture into one.

    Floating tensors are fused: computed in float32 (float64 where an input is float64), written in the first model's
    type. Integer and boolean tensors that are equal in all models are copied; `num_batches_tracked` is the first
    model's. Tensors that share storage in the first model, and storage or values in all others, stay tied; a tie of
    some models alone is undone. BatchNorm's running statistics are always averaged (mean of the means; mean of the
    variances plus variance of the means), unless `batch_norm="keep"`: measuring them anew needs data, which a run of
    the strategy has.

    Args:
        state_dicts: list of K state dicts with the same keys and shapes, of tensors or NumPy arrays; not changed.
        method: config stem of a weight fusion, such as `uniform_soup`.
        base: the weights that all models started from. A method without a base ignores it, unread and unchecked, so
            that one call serves several methods.
        statistics: one mapping a model, where the method uses what was measured on data.
        masks: one mapping a model, where the method takes masks.
        seed: of the method's random streams, which also depend on model index, key and element.
        fields: the method's hyper-parameters by name.

    Returns:
        Key -> new tensor, in the first model's order; shares no storage with the inputs and needs no gradient.

    Raises:
        HyperparameterError: unknown method or field (with the nearest names), or a value out of range.
        NeedsContextError: the method needs data or networks.
        MissingBaseError: the method needs `base`.
        StateDictMismatch: keys or shapes differ.
        BufferMismatch: integer buffers differ.
        NonFiniteError: a weight is NaN or infinite, or the merged one is too large for its type.
        StateDictError: what is passed is no list of state dicts of dense tensors.

    Example:
        >>> merge([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}], method="uniform_soup")
        {'w': tensor([2., 4.])}
    """
    if fields.get("batch_norm") == "reestimate":
        raise NeedsContextError(
            "`batch_norm=reestimate` needs training data, which `merge` does not have. Did you mean batch_norm=average?"
        )
    fusion = build("weight_fusion", method, fields)
    merged: dict[str, Tensor] = fusion.merged(state_dicts, base, statistics, masks, seed)
    return merged
