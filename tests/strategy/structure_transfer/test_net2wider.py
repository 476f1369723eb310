from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import BUILT, problem
from transfuse.strategy.parameter_transfer import L2Sp, Lora, LpFt, ParameterTransfer, SoupToSource
from transfuse.strategy.structure_transfer import Net2Wider
from transfuse.types import HyperparameterError, UnsupportedStructureError


@pytest.mark.parametrize("name", BUILT)
def test_every_shipped_network_is_widened_and_trained(name: str, tmp_path: Path) -> None:
    context = problem(tmp_path, name)
    fused = Net2Wider().apply(context)
    assert fused.network is not None and fused.diagnostics["preservation_error"] < 1e-5
    assert fused.diagnostics["parameters_after"] > fused.diagnostics["parameters_before"]
    assert all(after == 2 * before for before, after in fused.diagnostics["widths"].values())
    assert fused.steps == 6


def test_factor_one_is_a_copy(tmp_path: Path) -> None:
    context = problem(tmp_path)
    source = context.base_models[0]
    grown = Net2Wider(factor=1.0).grow(source, context.development, context.generator("init"))
    for key, value in grown.network.state_dict().items():
        assert "heads" in key or torch.equal(value, source.state[key])


def test_widths_of_its_own_and_noise(tmp_path: Path) -> None:
    context = problem(tmp_path)
    source = context.base_models[0]
    grown = Net2Wider(widths={"channels": [5, 9]}, noise=0.5).grow(source, context.development, torch.Generator())
    assert grown.report["widths"]["channels.1"] == [6, 9] and grown.report["preservation_error"] > 1e-4


def test_noise_is_on_copies_alone(tmp_path: Path) -> None:
    context = problem(tmp_path)
    source = context.base_models[0]
    grown = Net2Wider(noise=0.5).grow(source, context.development, torch.Generator())
    state = grown.network.state_dict()
    first = next(key for key, value in source.state.items() if value.dim() == 4)
    assert torch.equal(state[first][:4], source.state[first])
    assert (state[first][4:] - source.state[first][grown.report["maps"]["channels.0"][4:]]).abs().min() > 0
    assert all((value > 0).all() for key, value in state.items() if key.endswith("running_var"))


@pytest.mark.parametrize("then", [Lora(rank=2), SoupToSource(), LpFt(), L2Sp()])
def test_any_policy_trains_it(then: ParameterTransfer, tmp_path: Path) -> None:
    context = problem(tmp_path, lr=0.05)
    fused = Net2Wider(then=then).apply(context)
    assert fused.network is not None and "parametrizations" not in "".join(fused.network.state_dict())
    moved = {group for group, way in fused.diagnostics["drift"].items() if way > 0}
    assert len(moved) > 1 or fused.diagnostics["interpolation"]["taken"] == 0


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`factor` should be at least 1. Found `factor = 0.5`"):
        Net2Wider(factor=0.5)
    with pytest.raises(HyperparameterError, match="`split` should be unequal or equal"):
        Net2Wider(split="random")
    context = problem(tmp_path)
    with pytest.raises(HyperparameterError, match="`channels.0` should not become narrower. Found 4 and 2"):
        Net2Wider(widths={"channels": [2, 6]}).apply(context)
    with pytest.raises(HyperparameterError, match="Found `chanels`. Did you mean channels"):
        Net2Wider(widths={"chanels": [8, 8]}).apply(context)
    with pytest.raises(HyperparameterError, match="`widths.channels` should be 2 numbers. Found"):
        Net2Wider(widths={"channels": [8]}).apply(context)
    vit = problem(tmp_path / "vit", "vit")
    with pytest.raises(UnsupportedStructureError, match="Found 8 and 12. Did you mean factor=2"):
        Net2Wider(factor=1.5).apply(vit)
