from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import problem
from transfuse.models import build_mlp
from transfuse.strategy.structure_transfer import Net2Deeper
from transfuse.types import HyperparameterError, PreservationError, UnsupportedStructureError


@pytest.mark.parametrize("name", ["mlp", "resnet", "vit"])
def test_it_computes_the_same_and_trains(name: str, tmp_path: Path) -> None:
    fused = Net2Deeper().apply(problem(tmp_path, name))
    assert fused.network is not None and fused.diagnostics["preservation_error"] < 1e-5
    assert fused.diagnostics["parameters_after"] > fused.diagnostics["parameters_before"]


def test_one_position(tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp")
    source = context.base_models[0]
    grown = Net2Deeper(positions=[0]).grow(source, context.development, torch.Generator())
    state = grown.network.state_dict()
    assert torch.equal(state["backbone.stages.1.0.weight"], torch.eye(8))
    assert torch.equal(state["backbone.stages.2.0.weight"], source.state["backbone.stages.1.0.weight"])


def test_what_cannot_be_exact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedStructureError, match="no layer fits in between"):
        Net2Deeper().apply(problem(tmp_path, "cnn"))
    context = problem(tmp_path / "tanh", "mlp", build=partial(build_mlp, widths=[8], activation="tanh"))
    with pytest.raises(PreservationError, match="Found Tanh. Did you mean model.activation=relu"):
        Net2Deeper().apply(context)
    with pytest.raises(HyperparameterError, match=r"`positions` should be in \[0, 1\]"):
        Net2Deeper(positions=[4]).apply(problem(tmp_path / "mlp", "mlp"))
    with pytest.raises(HyperparameterError, match="`kind` should be auto, identity or residual"):
        Net2Deeper(kind="dense")
    with pytest.raises(UnsupportedStructureError, match="deepened by residual blocks"):
        Net2Deeper(kind="identity").apply(problem(tmp_path / "resnet", "resnet"))
