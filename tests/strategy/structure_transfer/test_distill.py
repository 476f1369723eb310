from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import BUILT, problem
from tests.toy import SIGN
from transfuse.strategy.structure_transfer import Distill, ScratchArchitecture
from transfuse.types import HyperparameterError, IncompatibleStrategyError


def weights(strategy: Distill | ScratchArchitecture, context) -> dict[str, torch.Tensor]:
    network = strategy.apply(context).network
    assert network is not None
    return network.state_dict()


def test_labels_alone_are_training_from_scratch(tmp_path: Path) -> None:
    context = problem(tmp_path)
    plain = weights(ScratchArchitecture(), context)
    assert all(torch.equal(value, plain[key]) for key, value in weights(Distill(alpha=1.0), context).items())


@pytest.mark.parametrize("teacher", ["source", "source_finetuned"])
def test_a_student_of_logits_alone_comes_near_its_teacher(teacher: str, tmp_path: Path) -> None:
    context = problem(tmp_path, "mlp", steps=200, lr=0.01, keep="last")
    fused = Distill(alpha=0.0, temperature=1.0, teacher=teacher).apply(context)
    assert ("teacher_probe" in fused.diagnostics) == (teacher == "source_finetuned")
    if teacher == "source":
        inputs = context.development.train.inputs
        taught = context.base_models[0].network()(inputs)["y" if "y" in fused.validation else SIGN.name]
        learnt = fused.network(inputs)[SIGN.name]
        assert (taught.argmax(1) == learnt.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("name", BUILT)
def test_every_shipped_network_teaches(name: str, tmp_path: Path) -> None:
    assert Distill().apply(problem(tmp_path, name)).steps == 6


def test_students_of_other_sizes(tmp_path: Path) -> None:
    context = problem(tmp_path)
    small = Distill(student={"channels": [2, 3]}, init="select").apply(context)
    assert small.network.get_parameter("backbone.stages.0.0.weight").shape[0] == 2
    large = Distill(student={"channels": [6, 8]}, init="widen").apply(context)
    assert large.diagnostics["preservation_error"] < 1e-5
    fresh = Distill(student={"channels": [3, 3]}).apply(context)
    assert fresh.network.get_parameter("backbone.stages.1.0.weight").shape[:2] == (3, 3)


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match=r"`alpha` should be in \[0, 1\]. Found `alpha = 2.0`"):
        Distill(alpha=2.0)
    with pytest.raises(HyperparameterError, match="`temperature` should be > 0. Found `temperature = 0.0`"):
        Distill(temperature=0.0)
    with pytest.raises(HyperparameterError, match="`init` should be fresh"):
        Distill(init="random")
    with pytest.raises(HyperparameterError, match="`teacher` should be source"):
        Distill(teacher="both")
    context = problem(tmp_path)
    with pytest.raises(HyperparameterError, match="has no `chanels`. Did you mean channels"):
        Distill(student={"chanels": [2, 3]}).apply(context)
    renamed = replace(context.development, tasks=(replace(context.development.tasks[0], classes=("no", "yes")),))
    with pytest.raises(IncompatibleStrategyError, match="Did you mean teacher=source_finetuned"):
        Distill(teacher="source").check(renamed, context.base_models.description)
