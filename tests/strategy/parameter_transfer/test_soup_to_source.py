from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem, trained
from transfuse.strategy.parameter_transfer import BitFit, FullFinetune, Lora, SoupToSource
from transfuse.types import HyperparameterError


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_at_one_it_is_the_inner_policy_at_zero_the_sources_backbone(tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp")
    inner = FullFinetune()
    assert same(trained(SoupToSource(inner=inner, coefficients=(1.0,)), context), trained(inner, context))
    back = trained(SoupToSource(inner=inner, coefficients=(0.0,)), context)
    source = context.base_models[0].state
    assert all(torch.equal(value, source[key]) for key, value in back.items() if "heads" not in key)


def test_the_choice_is_the_best_on_validation(tmp_path: Path) -> None:
    found = SoupToSource(inner=BitFit()).apply(problem(tmp_path, lr=0.1)).diagnostics["interpolation"]
    best = min(found["tried"], key=lambda entry: entry["nll"])
    assert found["taken"] == best["c"] and len(found["tried"]) == 11


def test_every_coefficient_is_a_look_and_low_rank_updates_are_mixed_too(tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp", lr=0.1)
    alone = Lora().apply(context)
    soup = SoupToSource(inner=Lora(), coefficients=(0.0,)).apply(context)
    assert soup.looks == alone.looks + 1
    assert soup.network is not None
    source = context.base_models[0].state
    assert all(
        torch.equal(value, source[key]) for key, value in soup.network.state_dict().items() if "heads" not in key
    )


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match=r"`coefficients` should be numbers in \[0, 1\]"):
        SoupToSource(coefficients=(0.5, 2.0))
