from __future__ import annotations

import torch
from torch import nn

from transfuse.training.batch_norm import reestimate


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_statistics_are_the_mean_over_full_batches() -> None:
    model = network()
    inputs = torch.randn(25, 3, generator=torch.Generator().manual_seed(1)) * 3 + 1
    reestimate(model, [model[0], model[1]], inputs, batch_size=10)
    batches = inputs[:20].reshape(2, 10, 3)
    torch.testing.assert_close(model[0].running_mean, batches.mean(1).mean(0))
    torch.testing.assert_close(model[0].running_var, batches.var(1).mean(0))
    assert model[0].num_batches_tracked == 2
    assert torch.equal(model[3].running_mean, torch.zeros(4))  # not asked for


def test_modes_and_momenta_are_left_as_they_were() -> None:
    model = network().eval()
    model[2].train()
    reestimate(model, list(model), torch.randn(10, 3), batch_size=10)
    assert [layer.training for layer in model] == [False, False, True, False]
    assert model[0].momentum == 0.1


def test_a_single_partial_batch_is_used() -> None:
    model, inputs = network(), torch.randn(6, 3)
    reestimate(model, [model[0]], inputs, batch_size=10)
    torch.testing.assert_close(model[0].running_mean, inputs.mean(0))


def test_networks_without_batch_norm_are_not_run() -> None:
    class Fails(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise AssertionError("run")

    reestimate(Fails(), [nn.Linear(2, 2)], torch.randn(4, 2), batch_size=2)
