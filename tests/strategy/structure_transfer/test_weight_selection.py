from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem
from transfuse.strategy.structure_transfer import WeightSelection
from transfuse.types import HyperparameterError, UnsupportedStructureError


@pytest.mark.parametrize("rule", ["uniform", "first", "random", "l1", "batch_norm"])
@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_units_are_the_sources(name: str, rule: str, tmp_path: Path) -> None:
    context = problem(tmp_path, name)
    source = context.base_models[0]
    widths = {"channels": [2, 3]} if rule == "batch_norm" else None  # features of the cnn have no BatchNorm
    strategy = WeightSelection(rule=rule if rule != "batch_norm" or name == "resnet" else "l1", widths=widths)
    grown = strategy.grow(source, context.development, context.generator("init"))
    for group, (before, after) in grown.report["widths"].items():
        assert after == before // 2 or widths is not None, group
    first = next(key for key in source.state if key.endswith("weight"))
    kept = grown.report["kept"]["channels.0"]
    assert torch.equal(grown.network.state_dict()[first], source.state[first][kept])


def test_equal_size_is_a_copy_and_it_trains(tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp")
    source = context.base_models[0]
    grown = WeightSelection(factor=1.0).grow(source, context.development, torch.Generator())
    for key, value in grown.network.state_dict().items():
        assert "heads" in key or torch.equal(value, source.state[key])
    assert WeightSelection().apply(context).steps == 6


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match=r"`factor` should be in \(0, 1\]. Found `factor = 1.5`"):
        WeightSelection(factor=1.5)
    with pytest.raises(HyperparameterError, match="`rule` should be one of uniform"):
        WeightSelection(rule="best")
    context = problem(tmp_path)
    with pytest.raises(HyperparameterError, match="`channels.0` should not become wider. Found 4 and 8"):
        WeightSelection(widths={"channels": [8, 6]}).apply(context)
    with pytest.raises(UnsupportedStructureError, match="has no BatchNorm. Did you mean rule=l1"):
        WeightSelection(rule="batch_norm").apply(problem(tmp_path / "mlp", "mlp"))
    with pytest.raises(UnsupportedStructureError, match="stream of a transformer"):
        WeightSelection().apply(problem(tmp_path / "vit", "vit"))
