from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transfuse.base_models.store import Store
from transfuse.types import StoreError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


def test_what_is_put_is_got_bit_for_bit(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put("k", STATE, {"seconds": 1.5})
    entry = store.get("k")
    assert entry is not None
    assert all(torch.equal(entry.state[name], STATE[name]) for name in STATE)
    assert entry.record["seconds"] == 1.5
    assert sorted(path.name for path in (tmp_path / "store" / "k").iterdir()) == ["model.safetensors", "record.json"]
    assert store.get("other") is None


def test_tied_tensors_can_be_stored(tmp_path: Path) -> None:
    shared = torch.ones(3)
    entry = Store(tmp_path).put("k", {"a": shared, "b": shared}, {})
    assert torch.equal(entry.state["b"], shared)


@pytest.mark.parametrize("damage", ["truncate", "flip", "no_record", "bad_record"])
def test_a_damaged_entry_is_set_aside_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = Store(tmp_path)
    store.put("k", STATE, {})
    weights, record = tmp_path / "k" / "model.safetensors", tmp_path / "k" / "record.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-4])
    elif damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "no_record":
        record.unlink()
    else:
        record.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert store.get("k") is None
    assert "is damaged" in caplog.text
    assert not (tmp_path / "k").exists()
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(TypeError):
        store.put("k", STATE, {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, torch; from pathlib import Path; from transfuse.base_models.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.lock('k'), store._writing('k') as folder:\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    store = Store(tmp_path)
    assert store.get("k") is None
    with store.lock("k"):  # would hang if the lock had survived its owner
        store.put("k", STATE, {})
    assert store.get("k") is not None


def test_predictions_come_back_for_the_same_examples_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    logits, ids = {"digit": torch.randn(4, 3)}, torch.tensor([5, 6, 7, 8])
    assert store.get_predictions("k", "data", "validation", ids) is None
    store.put_predictions("k", "data", "validation", logits, ids)
    found = store.get_predictions("k", "data", "validation", ids)
    assert found is not None and torch.equal(found["digit"], logits["digit"])
    assert store.get_predictions("k", "other data", "validation", ids) is None
    with caplog.at_level(logging.WARNING):
        assert store.get_predictions("k", "data", "validation", ids.flip(0)) is None
    assert "other examples" in caplog.text


def test_damaged_predictions_are_computed_again(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), torch.arange(4)
    store.put_predictions("k", "data", "train", {"y": torch.ones(4, 2)}, ids)
    path = tmp_path / "k" / "predictions" / "data" / "train.safetensors"
    path.write_bytes(path.read_bytes()[:10])
    assert store.get_predictions("k", "data", "train", ids) is None


def test_an_unwritable_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="cannot be written"):
        store.put("k", STATE, {})
    with pytest.raises(StoreError, match="cannot be written"), store.lock("k"):
        pass


def test_the_record_names_the_checksum(tmp_path: Path) -> None:
    Store(tmp_path).put("k", STATE, {})
    assert len(json.loads((tmp_path / "k" / "record.json").read_text())["sha256"]) == 64
