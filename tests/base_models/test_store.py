from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from transfuse.base_models.store import Store
from transfuse.types import StoreError

RECORD = {"seconds": 1.5, "validation": {}}
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


def test_what_is_put_is_got_bit_for_bit(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put("k", STATE, RECORD)
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


@pytest.mark.parametrize("damage", ["truncate", "flip", "no_record", "bad_record", "other_record", "short_record"])
def test_a_damaged_entry_is_set_aside_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = Store(tmp_path)
    store.put("k", STATE, RECORD)
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
        record.write_text({"bad_record": "{", "other_record": "[]", "short_record": '{"sha256": "0"}'}[damage])
    assert store.get("k") is None and (tmp_path / "k").exists()  # judged under the lock alone
    with caplog.at_level(logging.WARNING):
        assert store.get_or_set_aside("k") is None
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
        store.put("k", STATE, RECORD)
    assert store.get("k") is not None


def test_predictions_come_back_for_the_same_weights_and_examples_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    logits, ids = {"digit": torch.randn(4, 3), "ids": torch.ones(4, 2)}, torch.tensor([5, 6, 7, 8])
    assert store.get_predictions("k", "data", "validation", weights="w", ids=ids) is None
    store.put_predictions("k", "data", "validation", logits, weights="w", ids=ids)
    found = store.get_predictions("k", "data", "validation", weights="w", ids=ids)
    assert found is not None and found.keys() == logits.keys()
    assert all(torch.equal(found[name], logits[name]) for name in logits)
    assert store.get_predictions("k", "other data", "validation", weights="w", ids=ids) is None
    with caplog.at_level(logging.WARNING):
        assert store.get_predictions("k", "data", "validation", weights="w", ids=ids.flip(0)) is None
        assert store.get_predictions("k", "data", "validation", weights="new", ids=ids) is None
    assert "out of date" in caplog.text


@pytest.mark.parametrize("position", [10, -1])
def test_damaged_predictions_are_computed_again(tmp_path: Path, position: int) -> None:
    store, ids = Store(tmp_path), torch.arange(4)
    store.put_predictions("k", "data", "train", {"y": torch.ones(4, 2)}, weights="w", ids=ids)
    path = tmp_path / "k" / "predictions" / "data" / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert store.get_predictions("k", "data", "train", weights="w", ids=ids) is None


def test_replacing_an_entry_drops_its_predictions(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), torch.arange(4)
    store.put("k", STATE, RECORD)
    store.put_predictions("k", "data", "train", {"y": torch.ones(4, 2)}, weights="w", ids=ids)
    store.put("k", STATE, RECORD)
    assert store.get_predictions("k", "data", "train", weights="w", ids=ids) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]


def test_statistics_come_back_for_the_same_purpose_data_and_weights_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    shared = torch.randn(3, 3, dtype=torch.float64)
    statistics = {"linear.weight": shared, "tied": shared, "view": shared.T, "empty": torch.ones(0, 2)}
    assert store.get_statistics("k", "data", "fisher", weights="w") is None
    store.put_statistics("k", "data", "fisher", statistics, weights="w")
    found = store.get_statistics("k", "data", "fisher", weights="w")
    assert found is not None and found.keys() == statistics.keys()
    assert all(torch.equal(found[name], statistics[name]) for name in statistics)
    assert store.get_statistics("k", "other data", "fisher", weights="w") is None
    assert store.get_statistics("k", "data", "fisher of 8 examples", weights="w") is None
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert store.get_statistics("k", "data", "fisher", weights="new") is None
    assert "measured again" in caplog.text


@pytest.mark.parametrize("position", [10, -1])
def test_damaged_statistics_are_measured_again(tmp_path: Path, position: int) -> None:
    store = Store(tmp_path)
    store.put_statistics("k", "data", "fisher", {"w": torch.ones(4, 2)}, weights="w")
    [path] = (tmp_path / "k" / "statistics" / "data").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert store.get_statistics("k", "data", "fisher", weights="w") is None


def test_replacing_an_entry_drops_its_statistics(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("k", STATE, RECORD)
    store.put_statistics("k", "data", "fisher", {"w": torch.ones(4, 2)}, weights="w")
    store.put("k", STATE, RECORD)
    assert store.get_statistics("k", "data", "fisher", weights="w") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]


def test_readers_and_writers_of_one_entry_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two threads read and predict while a third replaces the entry 50 times: nothing raises, nothing is set aside."""
    store, ids = Store(tmp_path), torch.arange(4)
    store.put("k", STATE, RECORD)
    done, errors = threading.Event(), []

    def use() -> None:
        try:
            while not done.is_set():
                entry = store.get("k")
                assert entry is None or torch.equal(entry.state["weight"], STATE["weight"])
                store.put_predictions("k", "data", "train", {"y": torch.ones(4, 2)}, weights="w", ids=ids)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        store.put("k", STATE, RECORD)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.get("k") is not None and not (tmp_path / "damaged").exists()


def test_an_unwritable_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="cannot be written"):
        store.put("k", STATE, RECORD)
    with pytest.raises(StoreError, match="cannot be written"), store.lock("k"):
        pass


def test_the_record_names_the_checksum(tmp_path: Path) -> None:
    Store(tmp_path).put("k", STATE, RECORD)
    assert len(json.loads((tmp_path / "k" / "record.json").read_text())["sha256"]) == 64
