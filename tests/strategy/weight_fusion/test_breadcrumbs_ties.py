from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, random_models
from transfuse.strategy.weight_fusion import BreadcrumbsTies, Ties, merge
from transfuse.types import HyperparameterError

WEIGHTS = (0.5, 0.3, 0.4)


def test_golden(golden: Path) -> None:
    models, base = checkpoints(golden)
    merged = merge(models, method="breadcrumbs_ties", base=base, weights=WEIGHTS, scale=1.0)
    assert_golden(merged, golden / "checkpoint_breadcrumbs_ties.safetensors", atol=2e-7)


@pytest.mark.parametrize("merge", ["sum", "mean", "max"])
def test_without_outliers_to_drop_it_is_ties(merge) -> None:
    models, base = random_models(3, 501)
    found = BreadcrumbsTies(density=0.4, gamma=0.0, merge=merge).merged(models, base)["w"]
    ties = Ties(density=0.4, scale=0.3, merge=merge).merged(models, base)["w"]
    assert torch.equal(found, ties)


def test_outliers_do_not_vote() -> None:
    models = [{"w": torch.tensor([9.0, 1.0])}, {"w": torch.tensor([-1.0, 2.0])}]
    merged = BreadcrumbsTies(density=0.5, gamma=0.5, scale=1.0).merged(models, {"w": torch.zeros(2)})["w"]
    assert merged.tolist() == [-1.0, 1.0]


def test_bad_fields_are_refused() -> None:
    with pytest.raises(HyperparameterError, match="`merge` should be mean, sum or max"):
        BreadcrumbsTies(merge="median")
    with pytest.raises(HyperparameterError, match=r"`density \+ gamma` should be at most 1"):
        BreadcrumbsTies(density=1.0)
