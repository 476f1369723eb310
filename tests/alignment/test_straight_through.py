from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from transfuse.alignment import Pair, StraightThrough, specify
from transfuse.alignment.straight_through import Midpoint


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def untrained(network: nn.Module, *, epochs: int, lr: float) -> nn.Module:
    return network


def pair(reference: nn.Module, other: nn.Module) -> Pair:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    return Pair(
        specification=specify(reference, inputs, torch.Generator()),
        reference=reference,
        other=other,
        inputs=inputs,
        generator=torch.Generator().manual_seed(0),
        train=untrained,
    )


def halfway(found: Pair, order: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    permuted = found.specification.apply(found.other.state_dict(), order)
    return {key: (value + permuted[key]) / 2 for key, value in found.reference.state_dict().items()}


@pytest.mark.parametrize("training", [False, True])
def test_computes_what_the_network_half_way_does(training: bool) -> None:
    found = pair(network(0), network(1))
    midpoint = Midpoint(found).train(training)
    expected = functional_call(network(0), halfway(found, midpoint.permutation()), (found.inputs,))
    torch.testing.assert_close(midpoint(found.inputs), expected)


def test_the_gradient_passes_straight_through() -> None:
    found = pair(network(0), network(1))
    midpoint = Midpoint(found)
    midpoint(found.inputs).square().sum().backward()

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(network(0), weights, (found.inputs,)).square().sum()

    expected = grad(loss)(halfway(found, midpoint.permutation()))
    names = [name for name, _ in found.reference.named_parameters()]
    for name, free in zip(names, midpoint.free, strict=True):
        torch.testing.assert_close(free.grad, expected[name] / 2)
    assert all(parameter.grad is None for parameter in found.reference.parameters())


def test_the_permutation_follows_the_free_weights_in_training_alone() -> None:
    found = pair(network(0), network(1))
    midpoint = Midpoint(found)
    order = found.specification.random(torch.Generator().manual_seed(5))
    wanted = found.specification.apply(found.other.state_dict(), order)
    with torch.no_grad():
        for free, value in zip(midpoint.free, wanted.values(), strict=True):
            free.copy_(value)
    before = midpoint.permutation()
    midpoint.eval()(found.inputs)
    assert torch.equal(midpoint.permutation()["0.weight@0"], before["0.weight@0"])
    midpoint.train()(found.inputs)
    assert torch.equal(midpoint.permutation()["0.weight@0"], order["0.weight@0"])
    copy = Midpoint(found)
    copy.load_state_dict(midpoint.state_dict())  # the best epoch's weights bring their permutation back
    assert torch.equal(copy.permutation()["0.weight@0"], order["0.weight@0"])


def test_starts_at_weight_matching() -> None:
    reference, other = network(0), network(0)
    found = pair(reference, other)
    order = found.specification.random(torch.Generator().manual_seed(5))
    other.load_state_dict(found.specification.apply(reference.state_dict(), order))
    matched = found.specification.apply(other.state_dict(), StraightThrough().match(found))
    assert all(torch.equal(value, matched[key]) for key, value in reference.state_dict().items())
