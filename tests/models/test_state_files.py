"""Containers and files of state dicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transfuse.models import read_state
from transfuse.models.state_files import CONTAINERS, open_state, require_finite
from transfuse.types import NonFiniteError, StateDictError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_safetensors_come_with_their_metadata(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors", metadata={"name": "cnn"})
    state, metadata = read_state(tmp_path / "model.safetensors")
    assert same(state)
    assert metadata == {"name": "cnn"}


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "pytorch_model.bin"])
def test_files_of_torch_save_are_read(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / name)
    state, metadata = read_state(str(tmp_path / name))
    assert same(state)
    assert metadata == {}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_are_opened_and_named(container: str) -> None:
    state, found = open_state({"epoch": 3, "optimizer": {"lr": 0.1}, container: STATE})
    assert same(state)
    assert found == container


def test_the_first_container_wins() -> None:
    content = {name: {"a": torch.tensor(float(index))} for index, name in reversed(list(enumerate(CONTAINERS)))}
    state, found = open_state(content)
    assert found == "state_dict_ema"
    assert state["a"] == 0


def test_a_tensor_named_like_a_container_is_a_tensor() -> None:
    state, found = open_state({"model": torch.ones(2)})
    assert found == ""
    assert list(state) == ["model"]


def test_numpy_arrays_become_tensors() -> None:
    state, _ = open_state({"weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "steps": np.array(7)})
    assert same(state)


def test_other_containers_are_answered_with_what_was_found() -> None:
    with pytest.raises(StateDictError) as caught:
        open_state({"weights": STATE, "epoch": 3})
    assert str(caught.value) == (
        "the source holds no state dict: `weights` is no tensor. Tensors are looked for at the top and under "
        "state_dict_ema, model_ema, ema, state_dict, model. Found the keys weights, epoch."
    )


def test_pickled_classes_are_never_loaded(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(StateDictError) as caught:
        read_state(tmp_path / "whole.pt")
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'whole.pt'} cannot be read with `weights_only=True`, and nothing else is tri"
    )
    assert "torch.nn.modules.linear.Linear" in message
    assert "Save the state dict as safetensors instead" in message


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(StateDictError, match=f"{name} cannot be read"):
        read_state(tmp_path / name)


def test_files_without_a_mapping_are_named(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(StateDictError, match=r"list.pt should hold a state dict. Found list."):
        read_state(tmp_path / "list.pt")


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StateDictError, match=r"missing.pt is no file. Expected a checkpoint file."):
        read_state(tmp_path / "missing.pt")
    save_file(STATE, tmp_path / "model.safetensors")
    with pytest.raises(StateDictError) as caught:
        read_state(tmp_path)
    assert str(caught.value) == f"{tmp_path} is no file. Did you mean {tmp_path / 'model.safetensors'}?"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_key_that_is_not_finite_is_named(value: float) -> None:
    state = {"a": torch.ones(2), "b": torch.tensor([0.0, value]), "c": torch.tensor([value])}
    with pytest.raises(NonFiniteError, match=r"^`b` of x.pt holds values that are not finite.$"):
        require_finite(state, source="x.pt")
    require_finite(STATE, source="x.pt")


def test_arrays_of_any_byte_order_and_direction_are_read() -> None:
    state, _ = open_state({"a": np.array([1.0, 2.0], dtype=">f4"), "b": np.arange(3)[::-1]})
    assert (state["a"].tolist(), state["b"].tolist()) == ([1.0, 2.0], [2, 1, 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([torch.zeros(1)], "the source should be a state dict (key -> tensor). Found list."),
        (torch.nn.Linear(1, 1), "the source should be a state dict (key -> tensor). Found Linear. Did you mean its"),
        ({"a": torch.zeros(1, device="meta")}, "`a` of the source is on the meta device"),
    ],
)
def test_what_is_no_state_dict_is_named(source: Any, message: str) -> None:
    with pytest.raises(StateDictError, match=re.escape(message)):
        open_state(source)


def test_a_text_that_is_no_pickle_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(StateDictError, match="cannot be read with `weights_only=True`"):
        read_state(tmp_path / "text.pt")
