"""Heads and the assembly of networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfuse.models import Head, build_mlp
from transfuse.models.network import head_names
from transfuse.types import DataError, Task


def test_regression_heads_predict_in_the_targets_own_units() -> None:
    task = Task(name="y", kind="regression", outputs=2, location=(100.0, -5.0), scale=(10.0, 0.5))
    head = Head(3, task)
    features = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]))
        head.linear.bias.copy_(torch.tensor([0.5, -1.0]))
        # 100 + 10 * (1 + 3 + 0.5), -5 + 0.5 * (4 - 1); a zero input gives location + scale * bias
        expected = torch.tensor([[145.0, -3.5], [105.0, -5.5]])
        assert torch.equal(head(features), expected)


def test_location_and_scale_are_kept_with_the_weights_and_not_trained() -> None:
    head = Head(3, Task(name="y", kind="regression", outputs=1, location=(7.0,), scale=(2.0,)))
    assert head.state_dict()["location"].tolist() == [7.0]
    assert head.state_dict()["scale"].tolist() == [2.0]
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]


def test_regression_without_statistics_is_a_plain_linear_layer() -> None:
    head = Head(3, Task(name="y", kind="regression", outputs=2))
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head(features), head.linear(features))


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_logits_are_not_scaled(kind: str) -> None:
    head = Head(3, Task(name="y", kind=kind, outputs=2, location=(1.0, 1.0), scale=(9.0, 9.0)))
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head(features), head.linear(features))
    assert set(head.state_dict()) == {"linear.weight", "linear.bias"}


def test_statistics_of_the_wrong_length_are_named() -> None:
    task = Task(name="y", kind="regression", outputs=2, location=(1.0,), scale=(1.0, 1.0))
    with pytest.raises(DataError) as caught:
        Head(3, task)
    assert str(caught.value) == "`location` of task `y` should have one entry for each of its 2 targets. Found 1."


def test_state_dict_keys_say_backbone_or_task() -> None:
    tasks = (Task(name="a", kind="classification", outputs=2), Task(name="b", kind="regression", outputs=1))
    keys = set(build_mlp(input_shape=(4,), tasks=tasks, widths=[3]).state_dict())
    assert keys == {
        "backbone.stages.0.0.weight",
        "backbone.stages.0.0.bias",
        "heads.a.linear.weight",
        "heads.a.linear.bias",
        "heads.b.linear.weight",
        "heads.b.linear.bias",
        "heads.b.location",
        "heads.b.scale",
    }


def test_the_head_is_every_task_with_its_units() -> None:
    tasks = (Task(name="a", kind="classification", outputs=2), Task(name="b", kind="regression", outputs=1))
    network = build_mlp(input_shape=(4,), tasks=tasks, widths=[3])
    assert head_names(network) == {key for key in network.state_dict() if key.startswith("heads.")}


def test_a_plain_module_declares_no_head() -> None:
    assert head_names(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == frozenset()
    assert head_names(nn.Conv2d(1, 1, 1)) == frozenset()  # `groups` is a number there
