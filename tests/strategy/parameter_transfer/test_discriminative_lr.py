from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem, start, trained
from transfuse.strategy.parameter_transfer import DiscriminativeLr, FullFinetune
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_rates_fall_towards_the_input(tmp_path: Path) -> None:
    (phase,) = DiscriminativeLr(decay=0.5, min_factor=0.2).phases(start(DiscriminativeLr(), problem(tmp_path)))
    factors = [group.lr_factor for group in phase.groups]
    assert factors[-1] == 1.0 and factors[-2] == 0.5 and min(factors) >= 0.2 and factors == sorted(factors)


def test_without_decay_it_is_full_fine_tuning(tmp_path: Path) -> None:
    context = problem(tmp_path)
    assert same(trained(DiscriminativeLr(decay=1.0), context), trained(FullFinetune(), context))


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match=r"`decay` should be in \(0, 1\]. Found `decay = 1.5`"):
        DiscriminativeLr(decay=1.5)
    with pytest.raises(HyperparameterError, match=r"`min_factor` should be in \[0, 1\]"):
        DiscriminativeLr(min_factor=-0.1)
