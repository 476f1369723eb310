from __future__ import annotations

from pathlib import Path

import pytest

from tests.strategy.parameter_transfer.cases import moved, problem, start
from transfuse.strategy.parameter_transfer import BitFit
from transfuse.types import HyperparameterError


def test_only_biases_and_the_head_move_and_statistics_stay(tmp_path: Path) -> None:
    context = problem(tmp_path, lr=0.1)
    changed = {key for key in moved(BitFit(), context) if not key.startswith("heads.")}
    biases = {key for key in start(BitFit(), context).state_dict() if key.endswith("bias") and "heads" not in key}
    assert changed and changed <= biases


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`lr_factor` should be > 0. Found `lr_factor = 0.0`"):
        BitFit(lr_factor=0.0)
