from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from transfuse.tracking import Off


def test_off_does_nothing(tmp_path: Path) -> None:
    tracker = Off().at(tmp_path)
    run = tracker.start("job", "a job", tags={"transfuse.seed": "0"}, params={"seed": 0})
    tracker.curves(run, [{"epoch": 0, "loss": 1.0}])
    tracker.metrics(run, {"test/accuracy": 1.0})
    tracker.tags(run, {"a": "b"})
    tracker.dataset(run, "digits", "0" * 64, "test", {"examples": 10})
    tracker.artifacts(run, [tmp_path / "missing"])
    tracker.model(run, "fused", tmp_path / "missing", {})
    tracker.finish(run, "finished")
    assert run == ""
    assert tracker.failure is None
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_no_mlflow() -> None:
    code = (
        "import sys, transfuse.tracking; print({name.partition('.')[0] for name in sys.modules} & {'mlflow', 'torch'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
