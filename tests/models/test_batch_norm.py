"""Statistics of BatchNorm layers, measured on data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfuse.models.batch_norm import full_batches, reestimate
from transfuse.types import DataError


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 4), nn.BatchNorm1d(4))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 1


def test_statistics_are_the_mean_over_batches_and_counters_stay() -> None:
    model, inputs = network(), normal(20, 3)
    model[0].num_batches_tracked.fill_(7)
    reestimate(model, [model[0], model[1]], inputs.split(10))
    batches = inputs.reshape(2, 10, 3)
    torch.testing.assert_close(model[0].running_mean, batches.mean(1).mean(0))
    torch.testing.assert_close(model[0].running_var, batches.var(1).mean(0))
    assert model[0].num_batches_tracked == 7
    assert torch.equal(model[3].running_mean, torch.zeros(4))  # not asked for


def test_modes_and_momenta_are_left_as_they_were() -> None:
    model = network().eval()
    model[2].train()
    reestimate(model, list(model), [normal(10, 3)])
    assert [layer.training for layer in model] == [False, False, True, False]
    assert model[0].momentum == 0.1


def test_networks_without_batch_norm_are_not_run() -> None:
    class Fails(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise AssertionError("run")

    reestimate(Fails(), [nn.Linear(2, 2)], [torch.zeros(4, 2)])


def test_one_value_a_channel_has_no_variance() -> None:
    with pytest.raises(DataError, match="at least 2 examples. Found a batch of 1: Expected more than 1 value"):
        reestimate(*_whole(network()), [normal(1, 3)])


def _whole(model: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    return model, list(model.modules())


def test_one_example_with_several_values_a_channel_is_enough() -> None:
    model, image = nn.Sequential(nn.BatchNorm2d(2)), normal(1, 2, 4, 4)
    reestimate(*_whole(model), [image])
    torch.testing.assert_close(model[0].running_var, image[0].flatten(1).var(1))


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "sizes"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (2, 1, [2]), (5, 1, [2, 2])]
)
def test_batches_are_full_and_shuffled(num_examples: int, batch_size: int, sizes: list[int]) -> None:
    batches = list(full_batches(torch.arange(num_examples), batch_size, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == sizes
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == len(seen) == sum(sizes)
    if num_examples == 10:
        assert seen != sorted(seen)


def test_one_example_is_too_few() -> None:
    with pytest.raises(DataError, match=r"at least 2 training examples. Found 1"):
        reestimate(*_whole(network()), full_batches(torch.zeros(1, 3), 4, torch.Generator()))


def test_a_failure_leaves_momenta_and_modes() -> None:
    model = network()
    with pytest.raises(DataError):
        reestimate(*_whole(model), [normal(1, 3)])
    assert model[0].momentum == 0.1
    assert all(layer.training for layer in model)
