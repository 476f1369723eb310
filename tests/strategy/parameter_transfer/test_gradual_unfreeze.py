from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem, start, trained
from transfuse.strategy.parameter_transfer import FullFinetune, GradualUnfreeze
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_phases_free_ever_more_from_the_top(tmp_path: Path) -> None:
    context = problem(tmp_path)
    phases = GradualUnfreeze(finish_at=0.5).phases(start(GradualUnfreeze(), context))
    sizes = [sum(len(group.names) for group in phase.groups if group.trainable) for phase in phases]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    assert {name.split(".")[0] for group in phases[0].groups if group.trainable for name in group.names} == {"heads"}
    assert sum(phase.share for phase in phases) == pytest.approx(1.0) and phases[-1].share == 0.5
    assert GradualUnfreeze(finish_at=0.25).comparable_from(100) == 25


def test_at_once_it_is_full_fine_tuning(tmp_path: Path) -> None:
    context = problem(tmp_path)
    assert same(trained(GradualUnfreeze(finish_at=1e-6), context), trained(FullFinetune(), context))


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match=r"`finish_at` should be in \(0, 1\]. Found `finish_at = 0.0`"):
        GradualUnfreeze(finish_at=0.0)
    with pytest.raises(HyperparameterError, match="`groups_per_step` should be at least 1"):
        GradualUnfreeze(groups_per_step=0)
