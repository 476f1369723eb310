from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import moved, problem, start
from transfuse.strategy.parameter_transfer import BatchNormOnly
from transfuse.types import HyperparameterError, UnsupportedStructureError


def test_only_normalization_and_the_head_move(tmp_path: Path) -> None:
    context = problem(tmp_path, lr=0.1)
    network = start(BatchNormOnly(), context)
    norms = {
        f"{prefix}.{name}"
        for prefix, layer in network.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        for name in layer.state_dict()
    }
    changed = moved(BatchNormOnly(), context)
    assert {key for key in changed if not key.startswith("heads.")} <= norms
    assert any(key.endswith("running_mean") for key in changed)


def test_a_network_without_normalization_is_refused_before_training(tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp")
    with pytest.raises(UnsupportedStructureError, match="trains normalization layers. Found none"):
        BatchNormOnly().check(context.development, context.base_models.description)
    with pytest.raises(HyperparameterError, match="`norms` should be batch or all. Found `norms = layer`"):
        BatchNormOnly(norms="layer")
    context = problem(tmp_path / "vit", "vit")
    BatchNormOnly().check(context.development, context.base_models.description)
    with pytest.raises(UnsupportedStructureError, match="trains BatchNorm layers"):
        BatchNormOnly(norms="batch").check(context.development, context.base_models.description)
