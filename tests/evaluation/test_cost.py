from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest
import torch
from torch import Tensor, nn

from transfuse.evaluation.cost import (
    flops_per_example,
    inference_cost,
    latency_ms,
    mean_cost,
    num_parameters,
    peak_memory_mb,
)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Sleeping(nn.Module):
    """Takes the given times, one a call."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, 0

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self.seconds[min(self.calls, len(self.seconds) - 1)])
        self.calls += 1
        return inputs


@pytest.mark.parametrize("batch", [1, 7])
def test_flops_of_linear_are_two_per_weight(batch: int) -> None:
    assert flops_per_example(nn.Linear(30, 20), torch.zeros(batch, 30)) == 2 * 30 * 20


def test_flops_of_convolution() -> None:
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    assert flops_per_example(convolution, torch.zeros(2, 3, 5, 6)) == 2 * (5 * 6) * 8 * (3 * 9)


def test_flops_of_attention_are_its_two_matrix_products() -> None:
    heads, length, width = 2, 7, 8
    found = flops_per_example(Attention(), torch.zeros(3, heads, length, width))
    assert found == 2 * heads * (2 * length * length * width)


@pytest.mark.parametrize("frozen", [False, True])
def test_flops_of_a_transformer_layer_whatever_its_mode(frozen: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    layer.requires_grad_(not frozen)
    projections, attention, feedforward = 4 * 16 * 16 * 7, 2 * 7 * 7 * 16, 2 * 16 * 32 * 7
    assert flops_per_example(layer, torch.zeros(2, 7, 16)) == 2 * (projections + attention + feedforward)
    assert torch.backends.mha.get_fastpath_enabled()


def test_flops_equal_those_of_torch() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
    ).eval()
    inputs = torch.zeros(2, 1, 8, 8)
    with FlopCounterMode(display=False) as counter:
        network(inputs)
    assert flops_per_example(network, inputs) == counter.get_total_flops() / 2 > 0


def test_counting_does_not_load_the_compiler() -> None:
    code = """
import sys, torch
from transfuse.evaluation.cost import inference_cost
inference_cost(torch.nn.Linear(3, 2), torch.zeros(1, 3), repeats=1)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_tied_weights_count_once_and_buffers_do_not() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    assert num_parameters(nn.Sequential(first, second)) == 32
    second.weight = first.weight
    assert num_parameters(nn.Sequential(first, second)) == 16
    assert num_parameters(nn.BatchNorm1d(5)) == 10
    assert num_parameters(nn.ReLU()) == 0


def test_latency_is_the_median_after_a_warm_up() -> None:
    network = Sleeping([0.05, 0.001, 0.03, 0.001])
    assert 1 <= latency_ms(network, torch.zeros(1, 1), repeats=3) < 20
    assert network.calls == 4


def test_slow_networks_are_not_repeated_for_long() -> None:
    network = Sleeping([0.0, 0.11])
    assert latency_ms(network, torch.zeros(1, 1), repeats=20) >= 110
    assert network.calls == 3  # the warm-up and two passes of 0.11 s


def test_peak_memory_is_between_what_is_held_now_and_what_the_machine_has() -> None:
    held_now = psutil.Process().memory_info().rss / 2**20
    assert held_now * 0.99 <= peak_memory_mb(torch.device("cpu")) < psutil.virtual_memory().total / 2**20


def test_all_costs_and_their_mean() -> None:
    small = inference_cost(nn.Linear(3, 2), torch.zeros(2, 3), repeats=1)
    large = inference_cost(nn.Linear(3, 4), torch.zeros(2, 3), repeats=1)
    assert list(small) == ["parameters", "flops_per_example", "latency_ms", "peak_memory_mb"]
    assert all(value > 0 for value in small.values())
    mean = mean_cost([small, large])
    assert (mean["parameters"], mean["flops_per_example"]) == (12, 18)
