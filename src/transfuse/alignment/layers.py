"""Rules of layers with weights: linear, convolution, normalization, embedding, products of matrices, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transfuse.alignment.axes import Axes, Axis, concatenation, find, fix, fresh, nest, product, split, still, unite
from transfuse.alignment.calls import Call, Rule, tensors_in
from transfuse.alignment.elementwise import broadcast


def _unite_all(axes: Sequence[Axes | None], axis: Axis, place: str) -> None:
    """Vectors of one entry a unit (bias, scale, running statistics) are permuted with the units."""
    for found in axes:
        if found is not None:
            unite(found[-1], axis, place)


def _linear(call: Call) -> Sequence[Axes] | None:
    axes, weight = call.axes(0), call.axes(1, "weight")
    if axes is None or weight is None:
        return None
    unite(weight[-1], axes[-1], call.place)
    if len(weight) == 1:
        return [axes[:-1]]
    _unite_all([call.axes(2, "bias")], weight[0], call.place)
    return [(*axes[:-1], weight[0])]


def _convolution(call: Call) -> Sequence[Axes] | None:
    """Grouped: groups may be swapped, and units permuted within each, on either side."""
    axes, weight = call.axes(0), call.axes(1, "weight")
    groups, spatial = call.argument(6, "groups", 1), tuple(still(size) for size in call.shape[2:])
    if axes is None or weight is None or len(axes) != len(weight):
        return None
    for axis in (*axes[2:], *weight[2:]):
        fix(axis, "position")
    if groups == 1:
        unite(weight[1], axes[1], call.place)
    else:
        inputs, within = _blocks(axes[1], groups, call.place)
        outputs, _ = _blocks(weight[0], groups, call.place)
        unite(inputs, outputs, call.place)
        nest(weight[1], inputs)
        unite(weight[1], within, call.place)
    _unite_all([call.axes(2, "bias")], weight[0], call.place)
    return [(axes[0], weight[0], *spatial)]


def _blocks(axis: Axis, groups: int, place: str) -> tuple[Axis, Axis]:
    size = find(axis).size
    if size == groups:
        return axis, still(1)
    found = find(axis)
    if (
        found.parts
        and found.form == "product"
        and [find(part).size for part in found.parts] == [groups, size // groups]
    ):
        return found.parts[0], found.parts[1]
    return split(axis, groups, place)


def _transposed_convolution(call: Call) -> Sequence[Axes] | None:
    axes, weight = call.axes(0), call.axes(1, "weight")
    if axes is None or weight is None or len(axes) != len(weight) or call.argument(6, "groups", 1) != 1:
        return None
    for axis in (*axes[2:], *weight[2:]):
        fix(axis, "position")
    unite(weight[0], axes[1], call.place)
    _unite_all([call.axes(2, "bias")], weight[1], call.place)
    return [(axes[0], weight[1], *(still(size) for size in call.shape[2:]))]


def _channel_norm(call: Call) -> Sequence[Axes] | None:
    """BatchNorm and InstanceNorm: one channel is one unit, with its statistics."""
    axes = call.axes(0)
    if axes is None:
        return None
    names = ("running_mean", "running_var", "weight", "bias")
    _unite_all([call.axes(index, name) for index, name in enumerate(names, 1)], axes[1], call.place)
    return [axes]


def _group_norm(call: Call) -> Sequence[Axes] | None:
    """Groups may be swapped, and units permuted within each."""
    axes, groups = call.axes(0), call.argument(1, "num_groups")
    if axes is None:
        return None
    if groups > 1:
        _blocks(axes[1], groups, call.place)
    _unite_all([call.axes(2, "weight"), call.axes(3, "bias")], axes[1], call.place)
    return [axes]


def _layer_norm(call: Call) -> Sequence[Axes] | None:
    """LayerNorm and RMSNorm: scale and shift have the axes that are normalized."""
    axes = call.axes(0)
    if axes is None:
        return None
    for found in (call.axes(2, "weight"), call.axes(3, "bias")):
        for own, axis in zip(found or (), axes[-len(found or ()) :], strict=False):
            unite(own, axis, call.place)
    return [axes]


def _embedding(call: Call) -> Sequence[Axes] | None:
    index, weight = call.axes(0), call.axes(1, "weight")
    if index is None or weight is None:
        return None
    for axis in (*index, weight[0]):
        fix(axis, "position")
    return [(*index, weight[1])]


def _matmul(call: Call) -> Sequence[Axes] | None:
    first, second = call.axes(0), call.axes(1, "other") or call.axes(1, "mat2")
    if first is None or second is None:
        return None
    return [_product(first, second, call)]


def _product(first: Axes, second: Axes, call: Call) -> Axes:
    unite(first[-1], second[-2] if len(second) > 1 else second[0], call.place)
    rows, columns = first[-2:-1], second[-1:] if len(second) > 1 else ()
    left = call.shape[: len(call.shape) - len(rows) - len(columns)]
    return (*broadcast([first[:-2], second[:-2]], left, call.place), *rows, *columns)


def _addmm(call: Call) -> Sequence[Axes] | None:
    added, first, second = call.axes(0), call.axes(1, "mat1"), call.axes(2, "mat2")
    if added is None or first is None or second is None:
        return None
    return [broadcast([added, _product(first, second, call)], call.shape, call.place)]


def _einsum(call: Call) -> Sequence[Axes] | None:
    equation = call.args[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return None
    terms, _, output = equation.replace(" ", "").partition("->")
    letters: dict[str, Axis] = {}
    for term, tensor in zip(terms.split(","), tensors_in(call.args[1:]), strict=True):
        for letter, axis in zip(term, call.axes_of(tensor), strict=True):
            if letter in letters:
                unite(letters[letter], axis, call.place)
            else:
                letters[letter] = axis
    return [tuple(letters[letter] for letter in output)]


def _attention(call: Call) -> Sequence[Axes] | None:
    """softmax(Q K^T) V: units of Q and K together; those of V are the result's; heads are axes before them."""
    query, key, value = call.axes(0, "query"), call.axes(1, "key"), call.axes(2, "value")
    if query is None or key is None or value is None or call.kwargs.get("enable_gqa"):
        return None
    unite(query[-1], key[-1], call.place)
    unite(key[-2], value[-2], call.place)
    outer = broadcast([query[:-2], key[:-2], value[:-2]], call.shape[:-2], call.place)
    mask = call.axes(3, "attn_mask")
    if mask is not None:
        broadcast([mask, (*outer, query[-2], key[-2])], (*call.shape[:-1], find(key[-2]).size), call.place)
    return [(*outer, query[-2], value[-1])]


def _multi_head_attention(call: Call) -> Sequence[Axes] | None:
    """nn.MultiheadAttention: (L, N, E), weights of queries, keys and values in one tensor or three."""
    query, key, value = call.axes(0, "query"), call.axes(1, "key"), call.axes(2, "value")
    out = call.axes(11, "out_proj_weight")
    extra = [call.argument(7, "bias_k"), call.argument(8, "bias_v"), call.kwargs.get("static_k")]
    if query is None or key is None or value is None or out is None or any(item is not None for item in extra):
        return None
    heads = fresh(call.argument(4, "num_heads"))
    width = find(out[1]).size // heads.size
    inner = {name: fresh(width, heads if heads.size > 1 else None) for name in ("query_key", "value")}
    scored, mixed = product((heads, inner["query_key"])), product((heads, inner["value"]))
    stacked = call.axes(5, "in_proj_weight")
    sources = (query[-1], key[-1], value[-1])
    if stacked is not None:
        unite(stacked[0], concatenation((scored, scored, mixed)), call.place)
        for source in sources:
            unite(stacked[1], source, call.place)
    else:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        for name, source, rows in zip(names, sources, (scored, scored, mixed), strict=True):
            weight = call.axes_of(call.kwargs[name])
            unite(weight[0], rows, call.place)
            unite(weight[1], source, call.place)
    bias = call.axes(6, "in_proj_bias")
    if bias is not None:
        unite(bias[0], concatenation((scored, scored, mixed)), call.place)
    unite(out[1], mixed, call.place)
    _unite_all([call.axes(12, "out_proj_bias")], out[0], call.place)
    weights = [tuple(still(size) for size in tensor.shape) for tensor in tensors_in(call.result[1:])]
    return [(*query[:-1], out[0]), *weights]


RULES: Mapping[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    **dict.fromkeys(("batch_norm", "instance_norm"), _channel_norm),
    "group_norm": _group_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "embedding": _embedding,
    **dict.fromkeys(("matmul", "bmm", "mm", "mv"), _matmul),
    "addmm": _addmm,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
}
