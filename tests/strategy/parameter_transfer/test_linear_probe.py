from __future__ import annotations

from pathlib import Path

import pytest

from tests.strategy.parameter_transfer.cases import moved, problem
from transfuse.strategy.parameter_transfer import LinearProbe
from transfuse.types import DataError, HyperparameterError


def test_the_backbone_keeps_every_bit_and_no_step_is_taken(tmp_path: Path) -> None:
    context = problem(tmp_path)
    assert all(key.startswith("heads.") for key in moved(LinearProbe(), context))
    fused = LinearProbe(penalty=1.0).apply(context)
    assert fused.steps == 0 and fused.diagnostics["probe"]
    assert all(entry["gradient_norm"] < 1e-5 for entry in fused.diagnostics["probe"].values())


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`penalty` should be auto or > 0. Found `penalty = best`"):
        LinearProbe(penalty="best")
    with pytest.raises(HyperparameterError, match="`penalty` should be > 0. Found `penalty = 0`"):
        LinearProbe(penalty=0)
    context = problem(tmp_path)
    (task,) = context.development.tasks
    context.development.train.targets[task.name].fill_(0)
    with pytest.raises(DataError, match="needs a training example of every class"):
        LinearProbe().check(context.development, context.base_models.description)
