"""What holds for every combination of state dicts: one layout, finite values, integer buffers, ties, data types.

Floating tensors are fused. Integer and boolean tensors that are equal in all models are copied, `num_batches_tracked`
comes from the first model, and any other difference is an error. Nothing here writes to its inputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfuse.leaves import leaves
from transfuse.types import BufferMismatch, NonFiniteError, StateDictError, StateDictMismatch, TransfuseError

StateDict = Mapping[str, Tensor]
_SHOWN = 5


def as_tensors(state_dict: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The state dict with NumPy arrays as tensors and without gradients; storage is shared where it can be.

    Raises:
        StateDictError: when it is no mapping of texts, or a value is neither a tensor nor an array with values.
    """
    found = {}
    for key, value in require_mapping(state_dict, name).items():
        if not isinstance(key, str):
            raise StateDictError(f"Keys of {name} should be texts. Found {key!r}.")
        if not isinstance(value, (Tensor, np.ndarray, np.generic)):
            raise StateDictError(f"`{key}` of {name} should be a tensor or an array. Found {type(value).__name__}.")
        found[key] = as_tensor(value, f"`{key}` of {name}", StateDictError)
    return found


def require_mapping(state_dict: Any, name: str) -> Mapping[str, Any]:
    """The state dict itself; `StateDictError` where it is none, with a hint where it is a network."""
    if isinstance(state_dict, Mapping):
        return state_dict
    hint = " Did you mean its state_dict()?" if isinstance(state_dict, nn.Module) else ""
    raise StateDictError(f"{name} should be a state dict (key -> tensor). Found {type(state_dict).__name__}.{hint}")


def require_list(state_dicts: Any, name: str) -> None:
    """Raises `StateDictError` unless this is a list or tuple: of state dicts, one a model."""
    if not isinstance(state_dicts, Sequence) or isinstance(state_dicts, str):
        hint = " Did you mean list(...)?" if isinstance(state_dicts, Iterator) else ""
        raise StateDictError(f"{name} should be a list, one entry a model. Found {type(state_dicts).__name__}.{hint}")


def as_tensor(value: Any, name: str, error: type[TransfuseError]) -> Tensor:
    """Numbers from outside as a plain tensor without gradient; storage is shared where it can be.

    Args:
        value: a tensor, an array of any byte order and strides, a list of these, or (nested lists of) numbers.
        name: what the message calls it, as its first words.
        error: what is raised.

    Raises:
        TransfuseError: `error`, when there are no values (meta device), they are not dense, or they are no numbers.

    Example:
        >>> as_tensor([torch.ones(2), np.zeros(2)[::-1]], "`logits`", StateDictError)
        tensor([[1., 1.],
                [0., 0.]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        if value.is_meta:
            raise error(f"{name} is on the meta device and has no values. Was the network built but never loaded?")
        if value.layout != torch.strided or value.is_quantized:
            kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
            raise error(f"{name} should be a dense tensor. Found a {kind} one. Did you mean its to_dense()?")
        return value.detach()
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Tensor, np.ndarray)) for item in value):
        return _stacked([as_tensor(item, name, error) for item in value], name, error)
    try:
        return _from_array(np.asarray(value))  # numbers of Python stay float64
    except (TypeError, ValueError, RuntimeError, OverflowError) as failure:
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise error(f"{name} should be numbers that torch can hold. Found {found}.") from failure


def check_same_layout(state_dicts: Sequence[StateDict], names: Sequence[str]) -> None:
    """Checks that all state dicts have the keys and shapes of the first.

    Args:
        state_dicts: K >= 1 of them.
        names: K names for the message.

    Raises:
        StateDictMismatch: names up to five keys that differ, with both shapes and both models.

    Example:
        >>> check_same_layout([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], ["model 0", "model 1"])
        Traceback (most recent call last):
        transfuse.types.StateDictMismatch: `a` is (2,) in model 0 and (3,) in model 1. ...
    """
    first, first_name = state_dicts[0], names[0]
    found: list[str] = []
    for state_dict, name in zip(state_dicts[1:], names[1:], strict=True):
        found.extend(_differences(first, first_name, state_dict, name))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise StateDictMismatch(
            f"{'; '.join(found[:_SHOWN])}{more}. Weights can be fused only within one architecture. "
            "Did you mean an output_fusion strategy?"
        )


def check_finite(values_K: Sequence[Tensor], key: str, names: Sequence[str]) -> None:
    """Checks one floating tensor of every model.

    Raises:
        NonFiniteError: with model, key and count.
    """
    for value, name in zip(values_K, names, strict=True):
        if value.numel() == 0 or _is_finite(value):
            continue
        flat = value.reshape(-1)
        count = sum(int((~torch.isfinite(flat[leaf].double())).sum()) for leaf in leaves(flat.numel()))
        raise NonFiniteError(f"`{key}` of {name} has {count} of {value.numel()} values that are NaN or infinite.")


def copy_buffer(values_K: Sequence[Tensor], key: str, names: Sequence[str]) -> Tensor:
    """The one value of an integer or boolean tensor: the first model's, copied.

    Args:
        values_K: the models' tensors of one shape.
        key: where it stands; any value is taken for `num_batches_tracked`.
        names: of the models, for the message.

    Raises:
        BufferMismatch: when the models differ and the tensor is no BatchNorm counter.

    Example:
        >>> copy_buffer([torch.tensor(5), torch.tensor(9)], "norm.num_batches_tracked", ["a", "b"])
        tensor(5)
    """
    first = values_K[0]
    if key.rpartition(".")[2] != "num_batches_tracked":
        for value, name in zip(values_K[1:], names[1:], strict=True):
            if not torch.equal(first, value.to(first.device)):
                if first.is_complex():
                    raise BufferMismatch(
                        f"`{key}` ({_dtype(first)}) differs between {names[0]} and {name}, and complex tensors are not "
                        "fused. Should it be left out of the state dicts, or split by torch.view_as_real?"
                    )
                count = int((first != value.to(first.device)).sum())
                raise BufferMismatch(
                    f"`{key}` ({_dtype(first)}) differs between {names[0]} and {name} in {count} of {first.numel()} "
                    "values, and integers cannot be averaged. Should it be left out of the state dicts?"
                )
    return first.clone(memory_format=torch.contiguous_format)


def tied_keys(state_dicts: Sequence[StateDict]) -> dict[str, str]:
    """Which keys hold the same tensor as an earlier key, in every model.

    Keys are tied where the first state dict has one storage for both, and all others have one storage or equal values.
    A tie of the first model alone is none: where another model has two values, each key is a tensor of its own.

    Returns:
        Key -> the first key of the same tensor.

    Example:
        >>> shared = torch.ones(2)
        >>> tied_keys([{"embed": shared, "head": shared, "bias": torch.ones(2)}])
        {'head': 'embed'}
    """
    owners: dict[Any, str] = {}
    tied: dict[str, str] = {}
    for key, value in state_dicts[0].items():
        if value.numel() == 0:
            continue
        owner = owners.setdefault(_place(value), key)
        if owner != key and all(torch.equal(other[owner], other[key]) for other in state_dicts[1:]):
            tied[key] = owner
    return tied


def compute_dtype(values: Iterable[Tensor]) -> torch.dtype:
    """The type to compute in: float64 when any input is float64, otherwise float32.

    Results are rounded once, to the first model's type.
    """
    return torch.float64 if any(value.dtype == torch.float64 for value in values) else torch.float32


def batch_norm_statistics(keys: Iterable[str]) -> dict[str, str]:
    """Keys of BatchNorm's `running_mean` -> their `running_var`; recognized as siblings, no network is needed.

    Example:
        >>> batch_norm_statistics(["norm.running_mean", "norm.running_var", "norm.weight"])
        {'norm.running_mean': 'norm.running_var'}
    """
    keys = list(keys)
    known = set(keys)
    pairs = {}
    for key in keys:
        prefix, _, leaf = key.rpartition("running_mean")
        if leaf == "" and key.endswith("running_mean") and f"{prefix}running_var" in known:
            pairs[key] = f"{prefix}running_var"
    return pairs


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    if not array.flags.writeable or not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def _stacked(items: Sequence[Tensor], name: str, error: type[TransfuseError]) -> Tensor:
    shapes = sorted({tuple(item.shape) for item in items})
    if len(shapes) > 1:
        raise error(f"{name} should hold entries of one shape. Found {', '.join(map(str, shapes[:_SHOWN]))}.")
    dtype = functools.reduce(torch.promote_types, [item.dtype for item in items])
    return torch.stack([item.to(items[0].device, dtype) for item in items])


def _differences(first: StateDict, first_name: str, other: StateDict, name: str) -> list[str]:
    found = []
    for key, value in first.items():
        if key not in other:
            found.append(f"`{key}` is {_shape(value)} in {first_name} and missing in {name}")
        elif value.shape != other[key].shape:
            found.append(f"`{key}` is {_shape(value)} in {first_name} and {_shape(other[key])} in {name}")
        elif value.is_floating_point() != other[key].is_floating_point():
            found.append(f"`{key}` is {_dtype(value)} in {first_name} and {_dtype(other[key])} in {name}")
    extra = [key for key in other if key not in first]
    found.extend(f"`{key}` is missing in {first_name} and {_shape(other[key])} in {name}" for key in extra)
    return found


def _is_finite(value: Tensor) -> bool:
    if value.element_size() == 1:  # 8-bit floats have neither sum nor minimum
        value = value.float()
    if math.isfinite(float(value.sum())):  # NaN and infinity come through any sum; a finite sum may overflow
        return True
    low, high = torch.aminmax(value)  # no temporary of the tensor's size
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _place(value: Tensor) -> tuple[Any, ...]:
    storage = value.untyped_storage().data_ptr()
    return (storage, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype, value.device)


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
