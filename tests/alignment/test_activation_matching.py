from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from tests.alignment.networks import OWN, SHIPPED, seeded
from transfuse.alignment import ActivationMatching, Pair, match_activations, specify
from transfuse.types import HyperparameterError

ALL = {**SHIPPED, **OWN}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(network: nn.Module, *, epochs: int, lr: float) -> nn.Module:
    raise AssertionError("activation matching trains nothing")


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"residual"}))
def test_a_planted_permutation_is_recovered(name: str) -> None:
    make, inputs = ALL[name]
    network, other = seeded(make), seeded(make)
    specification = specify(network, inputs, stream())
    planted = specification.apply(network.state_dict(), specification.random(stream(3)))
    other.load_state_dict(planted)
    many = torch.randn(64, *inputs.shape[1:], generator=stream(4))
    if not inputs.is_floating_point():
        many = torch.randint(0, 11, (200, *inputs.shape[1:]), generator=stream(4))
    pair = Pair(
        specification=specification,
        reference=network,
        other=other,
        inputs=many,
        generator=stream(),
        train=untrained,
    )
    found = specification.apply(planted, ActivationMatching(examples=200).match(pair))
    for key, value in network.state_dict().items():
        assert torch.equal(found[key], value), key


def test_equals_assignment_of_numpy_correlations() -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 2)) for _ in range(2))
    inputs = torch.randn(300, 4)  # more than one batch
    found = match_activations(specify(first, inputs[:2], stream()), first, second, inputs)
    correlation = np.zeros((7, 7))
    for depth in (1, 2):
        a, b = (network[:depth](inputs).detach().double().numpy() for network in (first, second))
        correlation += np.corrcoef(a.T, b.T)[:7, 7:]
    _, expected = linear_sum_assignment(-correlation)
    assert found["0.weight@0"].tolist() == expected.tolist()


def test_units_that_never_vary_are_like_none() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        network[0].weight[2] = 0.0
    found = match_activations(
        specify(network, torch.randn(2, 4), stream()), network, network, torch.randn(50, 4, generator=stream())
    )
    assert found["0.weight@0"].tolist() == list(range(6))


def test_two_examples_at_least() -> None:
    with pytest.raises(HyperparameterError, match="`examples` should be >= 2. Found `examples = 1`"):
        ActivationMatching(examples=1)
