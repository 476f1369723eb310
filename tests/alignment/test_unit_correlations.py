from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.alignment.networks import OWN, SHIPPED, seeded
from transfuse.alignment import specify, unit_correlations

ALL = {**SHIPPED, **OWN}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layered(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 2))


def test_equals_the_mean_of_numpy_correlations() -> None:
    networks = [layered(seed) for seed in range(3)]
    inputs = torch.randn(300, 4, generator=stream())  # more than one batch
    specification = specify(networks[0], inputs[:2], stream())
    found = unit_correlations([specification] * 3, networks, inputs)
    expected = np.zeros((21, 21))
    for depth in (1, 2):
        samples = [network[:depth](inputs).detach().double().numpy().T for network in networks]
        expected += np.corrcoef(np.concatenate(samples)) / 2
    assert list(found) == ["0.weight@0"]
    np.testing.assert_allclose(found["0.weight@0"].numpy(), expected, atol=1e-9)


def test_positions_are_examples() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(20, 2)) for _ in range(2)]
    images = torch.randn(6, 2, 4, 4, generator=stream())
    specification = specify(networks[0], images, stream())
    found = unit_correlations([specification] * 2, networks, images)
    with torch.no_grad():
        samples = [network[0](images).movedim(1, 0).flatten(1).double().numpy() for network in networks]
    np.testing.assert_allclose(found["0.weight@0"].numpy(), np.corrcoef(np.concatenate(samples)), atol=1e-9)


def test_units_that_never_vary_are_like_none() -> None:
    network = layered(0)
    with torch.no_grad():
        network[0].weight[3] = 0.0
    inputs = torch.randn(50, 4, generator=stream())
    found = unit_correlations([specify(network, inputs[:2], stream())], [network], inputs)["0.weight@0"]
    assert found[3].tolist() == [0.0] * 7
    assert found.diagonal()[:3].tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "dense", "deconvolution", "residual"])
def test_a_permuted_copy_correlates_as_the_network_itself(name: str) -> None:
    make, inputs = ALL[name]
    network, copy = seeded(make), seeded(make)
    specification = specify(network, inputs, stream())
    orders = specification.random(stream(1))
    copy.load_state_dict(specification.apply(network.state_dict(), orders))
    found = unit_correlations([specification] * 2, [network, copy], inputs)
    assert list(found) == list(specification.symbols)
    for symbol, values_JJ in found.items():
        own_UU, across_UU = values_JJ.chunk(2)[0].chunk(2, dim=1)
        torch.testing.assert_close(across_UU, own_UU[:, orders[symbol]], atol=1e-4, rtol=0)
        torch.testing.assert_close(values_JJ, values_JJ.T)
        assert float(values_JJ.abs().max()) < 1 + 1e-9
