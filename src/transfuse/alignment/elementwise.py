"""Rules of operations that treat all positions of an axis alike: activations, arithmetic, reductions, broadcasting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from transfuse.alignment.axes import Axes, Axis, find, still, unite
from transfuse.alignment.calls import Call, Rule, tensors_in

_POINTWISE = """
    abs add addcdiv addcmul alpha_dropout and atan bitwise_and bitwise_or bitwise_not bool ceil celu clamp clamp_max
    clamp_min clip clone contiguous cos cpu data detach div divide double dropout dropout1d dropout2d dropout3d elu eq
    erf exp expm1 feature_alpha_dropout feature_dropout float floor floordiv fmod ge gelu gt half hardshrink hardsigmoid
    hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log1p logical_and logical_not logical_or log_sigmoid
    logsigmoid lt masked_fill maximum minimum mish mod mul multiply nan_to_num ne neg negative normalize ones_like or
    pow positive real reciprocal relu relu6 remainder requires_grad round rrelu rsqrt rsub selu sigmoid sign silu sin
    softmax log_softmax softmin softplus softshrink softsign sqrt square sub subtract tanh tanhshrink threshold to
    true_divide truediv trunc type type_as where zeros_like _weight_norm xor
""".split()  # noqa: SIM905 - a list has a line a word
_REDUCTIONS = ("mean", "sum", "amax", "amin", "std", "var", "logsumexp", "prod", "any", "all")


def broadcast(all_axes: Sequence[Axes], shape: Sequence[int], place: str) -> Axes:
    """The axes of a broadcast result: axes at the same place from the right are united."""
    result: list[Axis] = []
    for back in range(len(shape), 0, -1):
        size = shape[len(shape) - back]
        found = [axes[-back] for axes in all_axes if len(axes) >= back and find(axes[-back]).size == size]
        for other in found[1:]:
            unite(found[0], other, place)
        result.append(found[0] if found and size > 1 else still(size))
    return tuple(result)


def _pointwise(call: Call) -> Sequence[Axes] | None:
    if not isinstance(call.result, Tensor):
        return None
    all_axes = [call.axes_of(tensor) for tensor in call.tensors]
    return [broadcast(all_axes, call.shape, call.place)]


def _prelu(call: Call) -> Sequence[Axes] | None:
    axes, slopes = call.axes(0), call.axes(1, "weight")
    if axes is None or slopes is None:
        return None
    if find(slopes[0]).size > 1:
        unite(axes[1], slopes[0], call.place)
    return [axes]


def _reduction(call: Call) -> Sequence[Axes] | None:
    axes = call.axes(0)
    if axes is None:
        return None
    given = call.argument(1, "dim", call.kwargs.get("axis"))
    if isinstance(given, bool) or (given is not None and not isinstance(given, (int, tuple, list))):
        return None
    dims = range(len(axes)) if given is None else [given] if isinstance(given, int) else given
    dropped = {dim % len(axes) for dim in dims} if axes else set()
    left = tuple(axis for dim, axis in enumerate(axes) if dim not in dropped)
    kept = tuple(still(1) if dim in dropped else axis for dim, axis in enumerate(axes))
    return [left if len(result.shape) == len(left) else kept for result in tensors_in(call.result)]


def _extreme(call: Call) -> Sequence[Axes] | None:
    """`max(x)` and `max(x, dim)` reduce, `max(x, y)` is element-wise."""
    return _pointwise(call) if len(call.tensors) > 1 else _reduction(call)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("max", "min"), _extreme),
    "prelu": _prelu,
}
