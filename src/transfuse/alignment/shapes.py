"""Rules of operations that move, join and cut axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from transfuse.alignment.axes import (
    Axes,
    Axis,
    concatenation,
    cut,
    factors,
    find,
    fix,
    product,
    select,
    split,
    stack,
    still,
    unite,
)
from transfuse.alignment.calls import Call, Rule, tensors_in


def reshaped(axes: Axes, shape: Sequence[int], place: str) -> Axes:
    """The axes of a tensor in another shape: runs of factors are joined, and factors are split where runs end."""
    left = [factor for axis in axes for factor in factors(axis) if factor.size != 1]
    result: list[Axis] = []
    for index, size in enumerate(shape):
        taken: list[Axis] = []
        missing = size
        while missing > 1:
            factor = find(left.pop(0))
            if factor.size > missing and factor.size % missing == 0:
                apart = stack if _is_stacked(factor, shape[index : index + 3]) else split
                factor, rest = apart(factor, missing, place)
                left.insert(0, rest)
            if missing % factor.size:
                return _lost(axes, shape, place)
            taken.append(factor)
            missing //= factor.size
        result.append(product(taken) if taken else still(size))
    return tuple(result)


def _is_stacked(factor: Axis, sizes: Sequence[int]) -> bool:
    """Whether a view makes (2 or 3, heads, width) of one axis: keys and values, or queries too, in one tensor."""
    free = factor.fixed is None and not factor.parts and factor.parent is None
    return free and len(sizes) == 3 and sizes[0] in (2, 3) and math.prod(sizes) == factor.size


def _lost(axes: Axes, shape: Sequence[int], place: str) -> Axes:
    for axis in axes:
        fix(axis, place)
    return tuple(still(size, place) for size in shape)


def _reshape(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None or not isinstance(call.result, Tensor):
        return None
    return [reshaped(axes, call.shape, call.place)]


def _permute(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    order = call.argument(1, "dims")
    order = order if isinstance(order, (tuple, list)) else call.args[1:]
    return [tuple(axes[dim] for dim in order)]


def _transpose(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    first = call.argument(1, "dim0", call.kwargs.get("axis0"))
    second = call.argument(2, "dim1", call.kwargs.get("axis1"))
    return [_swapped(axes, first, second)]


def _swapped(axes: Axes, first: int, second: int) -> Axes:
    order = list(axes)
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def _turned(call: Call) -> Sequence[Axes] | None:
    """`x.T` reverses all axes, `x.mT` and `x.t()` the last two."""
    axes = call.axes(0)
    if axes is None:
        return None
    return [tuple(reversed(axes)) if call.name == "T" or len(axes) < 2 else _swapped(axes, -2, -1)]


def _expand(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    padded = (still(1),) * (len(call.shape) - len(axes)) + axes
    return [tuple(_grown(axis, size, call.place) for axis, size in zip(padded, call.shape, strict=True))]


def _grown(axis: Axis, size: int, place: str) -> Axis:
    if find(axis).size == size:
        return axis
    fix(axis, place)
    return still(size)


def _spatial(call: Call) -> Sequence[Axes] | None:
    """Poolings, padding and resizing: examples and channels stay, the rest are positions."""
    axes = call.axes(0)
    if axes is None:
        return None
    results = list(tensors_in(call.result))
    for axis in axes[2:]:
        fix(axis, call.place)
    if any(result.shape[: min(2, len(axes))] != _sizes(axes[:2]) for result in results):
        return None
    return [axes[:2] + tuple(still(size) for size in result.shape[2:]) for result in results]


def _sizes(axes: Axes) -> tuple[int, ...]:
    return tuple(find(axis).size for axis in axes)


def _pad(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    return [tuple(_grown(axis, size, call.place) for axis, size in zip(axes, call.shape, strict=True))]


def _concatenate(call: Call) -> Sequence[Axes] | None:
    given = call.argument(0, "tensors")
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0))
    if not isinstance(given, (tuple, list)) or not isinstance(dim, int):
        return None
    all_axes = [call.axes_of(tensor) for tensor in given]
    place = dim % len(all_axes[0])
    for axes in all_axes[1:]:
        for index, (one, other) in enumerate(zip(all_axes[0], axes, strict=True)):
            if index != place:
                unite(one, other, call.place)
    joined = concatenation([axes[place] for axes in all_axes])
    return [(*all_axes[0][:place], joined, *all_axes[0][place + 1 :])]


def _stack(call: Call) -> Sequence[Axes] | None:
    given, dim = call.argument(0, "tensors"), call.argument(1, "dim", 0)
    all_axes = [call.axes_of(tensor) for tensor in given]
    for axes in all_axes[1:]:
        for one, other in zip(all_axes[0], axes, strict=True):
            unite(one, other, call.place)
    result = list(all_axes[0])
    result.insert(dim % (len(result) + 1), still(len(all_axes)))
    return [tuple(result)]


def _cut(call: Call) -> Sequence[Axes] | None:
    """`chunk` and `split`: an axis in pieces, each of them an axis of its own."""
    axes = call.axes(0, "tensor")
    if axes is None:
        return None
    dim = call.argument(2, "dim", 0) % len(axes)
    results = list(tensors_in(call.result))
    parts = cut(axes[dim], [result.shape[dim] for result in results], call.place)
    return [(*axes[:dim], part, *axes[dim + 1 :]) for part in parts]


def _unbind(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    dim = call.argument(1, "dim", 0) % len(axes)
    return [select(axes, dim, index, call.place) for index, _ in enumerate(tensors_in(call.result))]


def _picked(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    dim = call.argument(1, "dim") % len(axes)
    return [select(axes, dim, call.argument(2, "index"), call.place)]


def _index(call: Call) -> Sequence[Axes] | None:
    """`x[...]` with integers, slices, None and one Ellipsis; what is cut is fixed."""
    axes, given = call.axes(0), call.args[1]
    items: list[Any] = list(given) if isinstance(given, tuple) else [given]
    if axes is None or any(item is not Ellipsis and not isinstance(item, (int, slice, type(None))) for item in items):
        return None
    if any(isinstance(item, bool) for item in items):  # a new axis, or none
        return None
    used = sum(isinstance(item, (int, slice)) for item in items)
    rest = [slice(None)] * (len(axes) - used)
    place = next((index for index, item in enumerate(items) if item is Ellipsis), len(items))
    items = items[:place] + rest + items[place + 1 :]
    dim = 0
    for item in items:
        if isinstance(item, int):
            axes = select(axes, dim, item, call.place)
            continue
        axis = still(1) if item is None else _sliced(axes[dim], item, call.place)
        axes = (*axes[:dim], axis, *axes[dim + (item is not None) :])
        dim += 1
    return [axes]


def _sliced(axis: Axis, item: slice, place: str) -> Axis:
    positions = range(find(axis).size)[item]
    if positions != range(find(axis).size):
        fix(axis, place)
    return axis if len(positions) == find(axis).size else still(len(positions))


_RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
_POOLS = """
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d
    interpolate upsample
""".split()  # noqa: SIM905 - a list has a line a word
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(("permute",), _permute),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("T", "mT", "t"), _turned),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(_POOLS, _spatial),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenate),
    **dict.fromkeys(("chunk", "split"), _cut),
    "pad": _pad,
    "stack": _stack,
    "unbind": _unbind,
    "select": _picked,
    "getitem": _index,
}
