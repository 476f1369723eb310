from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from transfuse.models import build_mlp, build_resnet, build_vit, predict
from transfuse.types import HyperparameterError, Task

TASKS = (Task(name="a", kind="classification", outputs=3), Task(name="b", kind="regression", outputs=1))


@pytest.mark.parametrize("build", [build_mlp, build_resnet, build_vit])
def test_repeated_predictions_are_equal_bit_by_bit(build: Callable[..., nn.Module]) -> None:
    network = build(input_shape=(1, 8, 8), tasks=TASKS)
    inputs = torch.randn(37, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, again = predict(network, inputs, batch_size=16), predict(network, inputs, batch_size=16)
    assert all(torch.equal(first[task], again[task]) for task in ("a", "b"))


def test_batches_are_put_together_in_order() -> None:
    network = build_resnet(input_shape=(1, 8, 8), tasks=TASKS)
    inputs = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = predict(network, inputs, batch_size=3)
    network.eval()
    for task in ("a", "b"):
        torch.testing.assert_close(outputs[task], network(inputs)[task])
        assert outputs[task].dtype == torch.float32
        assert not outputs[task].requires_grad


def test_modes_and_buffers_are_as_before() -> None:
    network = build_resnet(input_shape=(1, 8, 8), tasks=TASKS)
    network.train()
    network.backbone.stages[1].eval()
    modes = [module.training for module in network.modules()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    predict(network, torch.randn(4, 1, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())


def test_modes_are_restored_after_an_error() -> None:
    network = build_mlp(input_shape=(4,), tasks=TASKS).train()
    with pytest.raises(RuntimeError):
        predict(network, torch.zeros(2, 5))
    assert all(module.training for module in network.modules())


def test_outputs_can_be_learned_from() -> None:
    network = build_mlp(input_shape=(4,), tasks=TASKS)
    weight = nn.Parameter(torch.ones(3))
    (predict(network, torch.ones(2, 4))["a"] * weight).sum().backward()
    assert weight.grad is not None


def test_autocast_around_does_not_lower_the_precision() -> None:
    network = build_mlp(input_shape=(4,), tasks=TASKS)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    plain = predict(network, inputs)["a"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(predict(network, inputs)["a"], plain)


def test_no_examples_give_no_rows() -> None:
    network = build_mlp(input_shape=(4,), tasks=TASKS)
    assert predict(network, torch.zeros(0, 4))["a"].shape == (0, 3)


def test_a_network_without_parameters_predicts() -> None:
    class Sum(nn.Module):
        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": inputs.sum(dim=1, keepdim=True)}

    assert predict(Sum(), torch.ones(3, 2), batch_size=2)["sum"].tolist() == [[2.0], [2.0], [2.0]]


def test_batch_size_is_checked() -> None:
    with pytest.raises(HyperparameterError, match=r"`batch_size` should be an integer >= 1. Found `batch_size = 0`."):
        predict(build_mlp(input_shape=(4,), tasks=TASKS), torch.zeros(1, 4), batch_size=0)
