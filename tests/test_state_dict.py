from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transfuse.state_dict import (
    as_tensor,
    as_tensors,
    batch_norm_statistics,
    check_finite,
    check_same_layout,
    compute_dtype,
    copy_buffer,
    tied_keys,
)
from transfuse.types import BufferMismatch, NonFiniteError, StateDictError, StateDictMismatch

NAMES = ["seeds-0", "seeds-1", "seeds-2"]


def test_equal_layouts_pass_whatever_the_order_of_keys() -> None:
    check_same_layout(
        [{"a": torch.zeros(2), "b": torch.zeros(())}, {"b": torch.ones(()), "a": torch.ones(2)}], NAMES[:2]
    )


def test_a_shape_mismatch_names_key_shapes_and_models() -> None:
    states = [{"fc.weight": torch.zeros(3, 4)}, {"fc.weight": torch.zeros(3, 4)}, {"fc.weight": torch.zeros(3, 5)}]
    with pytest.raises(StateDictMismatch) as error:
        check_same_layout(states, NAMES)
    assert str(error.value) == (
        "`fc.weight` is (3, 4) in seeds-0 and (3, 5) in seeds-2. Weights can be fused only within one architecture. "
        "Did you mean an output_fusion strategy?"
    )


def test_missing_and_extra_keys_and_other_kinds_of_type_are_named() -> None:
    states = [{"a": torch.zeros(1), "n": torch.zeros(1)}, {"b": torch.zeros(2), "n": torch.zeros(1, dtype=torch.int64)}]
    with pytest.raises(StateDictMismatch) as error:
        check_same_layout(states, NAMES[:2])
    assert "`a` is (1,) in seeds-0 and missing in seeds-1" in str(error.value)
    assert "`b` is missing in seeds-0 and (2,) in seeds-1" in str(error.value)
    assert "`n` is float32 in seeds-0 and int64 in seeds-1" in str(error.value)


def test_at_most_five_differences_are_listed() -> None:
    with pytest.raises(StateDictMismatch) as error:
        check_same_layout([{f"k{index}": torch.zeros(1) for index in range(8)}, {}], NAMES[:2])
    assert str(error.value).count("missing") == 5 and "and 3 more" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_non_finite_values_are_counted(dtype: torch.dtype) -> None:
    good = torch.ones(2, 3).to(dtype)
    bad = torch.tensor([[1.0, float("nan"), 1.0], [1.0, 1.0, float("nan")]]).to(dtype)
    check_finite([good, good], "w", NAMES[:2])
    with pytest.raises(NonFiniteError, match="`w` of seeds-1 has 2 of 6 values that are NaN or infinite"):
        check_finite([good, bad], "w", NAMES[:2])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 65_535, 65_536, 70_000])
def test_one_non_finite_value_anywhere_is_found(value: float, place: int) -> None:
    tensor = torch.zeros(70_001)
    tensor[place] = value
    with pytest.raises(NonFiniteError, match="1 of 70001"):
        check_finite([tensor], "w", NAMES[:1])


def test_empty_tensors_are_finite() -> None:
    check_finite([torch.zeros(0, 3)], "w", NAMES[:1])


def test_equal_buffers_are_copied() -> None:
    first = torch.arange(3)
    copied = copy_buffer([first, torch.arange(3)], "ids", NAMES[:2])
    assert torch.equal(copied, first) and copied.data_ptr() != first.data_ptr()


@pytest.mark.parametrize("key", ["num_batches_tracked", "block.norm.num_batches_tracked"])
def test_counters_are_the_first_models(key: str) -> None:
    assert copy_buffer([torch.tensor(3), torch.tensor(5)], key, NAMES[:2]).item() == 3


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (
            torch.tensor([1, 2, 3]),
            torch.tensor([1, 5, 6]),
            "`ids` (int64) differs between seeds-0 and seeds-1 in 2 of 3",
        ),
        (torch.tensor([True]), torch.tensor([False]), "`ids` (bool) differs between seeds-0 and seeds-1 in 1 of 1"),
    ],
)
def test_other_buffers_that_differ_are_refused(first: torch.Tensor, second: torch.Tensor, found: str) -> None:
    with pytest.raises(BufferMismatch) as error:
        copy_buffer([first, second], "ids", NAMES[:2])
    assert found in str(error.value)


def test_ties_need_one_storage_place_and_shape() -> None:
    shared = torch.arange(6.0)
    state = {"a": shared, "b": shared, "half": shared[:3], "view": shared.view(2, 3), "copy": shared.clone()}
    assert tied_keys([state]) == {"b": "a"}


def test_ties_hold_where_other_models_stored_equal_copies() -> None:
    shared = torch.arange(6.0)
    first = {"a": shared, "b": shared}
    assert tied_keys([first, {"a": torch.ones(6), "b": torch.ones(6)}]) == {"b": "a"}
    assert tied_keys([first, {"a": torch.ones(6), "b": torch.zeros(6)}]) == {}


def test_empty_tensors_are_not_tied() -> None:
    assert tied_keys([{"a": torch.zeros(0), "b": torch.zeros(0)}]) == {}


def test_a_tied_module_is_recognized() -> None:
    network = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    network["head"].weight = network["embed"].weight
    assert tied_keys([network.state_dict()]) == {"head.weight": "embed.weight"}


def test_computation_is_in_float32_unless_an_input_is_float64() -> None:
    half, single, double = (torch.zeros(1, dtype=dtype) for dtype in (torch.float16, torch.float32, torch.float64))
    assert compute_dtype([half, half]) == torch.float32
    assert compute_dtype([half, single]) == torch.float32
    assert compute_dtype([half, double]) == torch.float64


def test_batch_norm_is_recognized_by_siblings() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    assert batch_norm_statistics(network.state_dict()) == {"1.running_mean": "1.running_var"}
    assert batch_norm_statistics(nn.BatchNorm1d(2).state_dict()) == {"running_mean": "running_var"}
    assert batch_norm_statistics(["x.running_mean", "y.running_var"]) == {}


def test_arrays_become_tensors() -> None:
    read_only = np.arange(3.0)
    read_only.flags.writeable = False
    arrays = {
        "plain": np.ones((2, 2), dtype=np.float32),
        "scalar": np.float64(2.5),
        "zero_d": np.array(4, dtype=np.int64),
        "read_only": read_only,
        "reversed": np.arange(3.0)[::-1],
        "big_endian": np.arange(3, dtype=">f4"),
    }
    tensors = as_tensors(arrays, "model 0")
    for key, array in arrays.items():
        assert tensors[key].tolist() == array.tolist() and tuple(tensors[key].shape) == np.shape(array)
    assert tensors["plain"].dtype == torch.float32 and tensors["big_endian"].dtype == torch.float32


@pytest.mark.parametrize("value", ["text", None, [1.0]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(StateDictError, match="`extra` of model 0 should be a tensor or an array"):
        as_tensors({"extra": value}, "model 0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["text"]), "should be numbers that torch can hold. Found an array of <U4."),
        (np.array([1.0], dtype=object), "should be numbers that torch can hold. Found an array of object."),
        (np.zeros(2, dtype=np.longdouble), "should be numbers that torch can hold. Found an array of float128."),
        (torch.zeros(2, device="meta"), "is on the meta device and has no values."),
        (torch.eye(2).to_sparse(), "should be a dense tensor. Found a sparse_coo one. Did you mean its to_dense()?"),
    ],
)
def test_values_that_are_no_dense_numbers_are_refused(value: object, message: str) -> None:
    with pytest.raises(StateDictError, match=re.escape(f"`extra` of model 0 {message}")):
        as_tensors({"extra": value}, "model 0")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            nn.Linear(1, 1),
            "model 0 should be a state dict (key -> tensor). Found Linear. Did you mean its state_dict()?",
        ),
        (None, "model 0 should be a state dict (key -> tensor). Found NoneType."),
        ({0: torch.zeros(1)}, "Keys of model 0 should be texts. Found 0."),
    ],
)
def test_what_is_no_state_dict_is_refused(state: Any, message: str) -> None:
    with pytest.raises(StateDictError, match=re.escape(message)):
        as_tensors(state, "model 0")


def test_lists_are_stacked() -> None:
    found = as_tensor([torch.ones(2, requires_grad=True), np.arange(2.0)[::-1]], "`x`", StateDictError)
    assert found.tolist() == [[1.0, 1.0], [1.0, 0.0]] and found.dtype == torch.float64 and not found.requires_grad
    with pytest.raises(StateDictError, match=r"`x` should hold entries of one shape. Found \(2,\), \(3,\)"):
        as_tensor([torch.ones(2), torch.ones(3)], "`x`", StateDictError)


def test_complex_tensors_are_copied_where_they_are_equal() -> None:
    value = torch.tensor([1 + 2j])
    assert torch.equal(copy_buffer([value, value.clone()], "rotary", NAMES[:2]), value)
    with pytest.raises(BufferMismatch, match=r"`rotary` \(complex64\) differs .* complex tensors are not fused"):
        copy_buffer([value, value + 1], "rotary", NAMES[:2])
