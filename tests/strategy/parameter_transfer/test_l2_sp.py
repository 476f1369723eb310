from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem, trained
from transfuse.strategy.parameter_transfer import FullFinetune, L2Sp
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_without_factors_it_is_full_fine_tuning(tmp_path: Path) -> None:
    context = problem(tmp_path, weight_decay=0.0)
    assert same(trained(L2Sp(alpha=0.0, beta=0.0), context), trained(FullFinetune(), context))


def test_the_way_from_the_source_falls_with_alpha(tmp_path: Path) -> None:
    context = problem(tmp_path, optimizer="sgd", lr=0.01, steps=60, keep="last", schedule="constant")
    ways = []
    for alpha in (0.0, 0.3, 3.0):
        drift = L2Sp(alpha=alpha, batch_norm="eval").apply(context).diagnostics["drift"]
        ways.append(sum(way for group, way in drift.items() if group != "head"))
    assert ways[0] > ways[1] > ways[2]


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`alpha` should be >= 0. Found `alpha = -1.0`"):
        L2Sp(alpha=-1.0)
    with pytest.raises(HyperparameterError, match="`beta` should be >= 0"):
        L2Sp(beta=float("nan"))
