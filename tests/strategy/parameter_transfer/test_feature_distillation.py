from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem, trained
from transfuse.strategy.parameter_transfer import FeatureDistillation, FullFinetune
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_without_weight_it_is_full_fine_tuning_and_with_weight_it_is_not(tmp_path: Path) -> None:
    context = problem(tmp_path)
    plain = trained(FullFinetune(), context)
    assert same(trained(FeatureDistillation(weight=0.0), context), plain)
    assert not same(trained(FeatureDistillation(weight=50.0), context), plain)


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`weight` should be >= 0"):
        FeatureDistillation(weight=-1.0)

    with pytest.raises(HyperparameterError, match="`layers` should name modules. Found"):
        FeatureDistillation(layers=("backbon",)).apply(problem(tmp_path))
