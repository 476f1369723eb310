"""The command is killed by SIGKILL; given again, it ends with the weights of a run that was left alone."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import transfuse

BASE = [
    "data=digits",
    "strategy=output_fusion/average",
    "base_models=seeds",
    "base_models.count=2",
    "training.epochs=30",
]
TASKS = ["data=digits_tasks", "strategy=multi_task/famo", "training.epochs=40"]
QUIET = ["trainer=cpu", "trainer.threads=1", "trainer.progress=false", "tracking=off", "evaluation.figures=never"]


def wait_for(folder: Path, process: subprocess.Popen[bytes]) -> Path:
    """The first checkpoint."""
    while True:
        found = sorted(folder.glob("*.ckpt"))
        if found:
            return found[0]
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.005)


@pytest.mark.parametrize(("overrides", "weights"), [(BASE, "store/*"), (TASKS, "runs/*/*/fused")], ids=["base", "famo"])
def test_a_killed_run_goes_on(
    overrides: list[str], weights: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    given = [*overrides, *QUIET, "trainer.checkpoint_every=0", f"paths.outputs={broken}"]
    process = subprocess.Popen([Path(sys.executable).with_name("transfuse"), *given], stdout=subprocess.DEVNULL)
    checkpoint = wait_for(broken / "store" / "training", process)
    process.kill()
    process.wait()
    assert checkpoint.exists() and not list(broken.glob(f"{weights}/model.safetensors"))

    with caplog.at_level(logging.INFO, logger="transfuse"):
        transfuse.run(given)
    assert sum("goes on from the checkpoint of step" in message for message in caplog.messages) == 1
    assert list((broken / "store" / "training").iterdir()) == []
    transfuse.run([*overrides, *QUIET, f"paths.outputs={unbroken}"])
    assert not (unbroken / "store" / "training").exists()
    found, expected = (
        [
            load_file(path)
            for path in sorted(folder.glob(f"{weights}/model.safetensors"), key=lambda path: path.parts[-2])
        ]
        for folder in (broken, unbroken)
    )
    assert len(found) == len(expected) >= 1
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
