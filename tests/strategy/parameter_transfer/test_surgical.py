from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import moved, problem, trained
from transfuse.strategy.parameter_transfer import FullFinetune, Surgical
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_all_groups_are_full_fine_tuning(tmp_path: Path) -> None:
    context = problem(tmp_path)
    assert same(trained(Surgical(group="all"), context), trained(FullFinetune(), context))


def test_one_named_group_moves(tmp_path: Path) -> None:
    changed = moved(Surgical(group="stages.1"), problem(tmp_path, lr=0.05))
    assert {key.split(".")[0] + "." + key.split(".")[2] for key in changed if "heads" not in key} == {"backbone.1"}


def test_the_group_of_the_largest_relative_gradient_is_picked(tmp_path: Path) -> None:
    fused = Surgical().apply(problem(tmp_path))
    relative = fused.diagnostics["relative_gradient"]
    assert fused.diagnostics["picked_group"] == max(relative, key=relative.get)
    drift = fused.diagnostics["drift"]
    assert {group for group, way in drift.items() if way > 0} <= {fused.diagnostics["picked_group"], "head"}


def test_rates_by_relative_gradient(tmp_path: Path) -> None:
    fused = Surgical(mode="weight").apply(problem(tmp_path, lr=0.05))
    assert "picked_group" not in fused.diagnostics and min(fused.diagnostics["drift"].values()) > 0


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`mode` should be pick or weight"):
        Surgical(mode="best")
    context = problem(tmp_path)
    with pytest.raises(HyperparameterError, match="Found `group = stages.7`"):
        Surgical(group="stages.7").check(context.development, context.base_models.description)
