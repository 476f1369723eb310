from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfuse.data.loaders import TrainingBatches
from transfuse.training import BaseModule, Fit, FitResult, TogetherModule, Training
from transfuse.training.stacked import Stacked, check_together
from transfuse.training.together import StackedBatches, clip_members
from transfuse.types import HyperparameterError, Split, Task

Make = Callable[..., nn.Module]
Examples = Callable[..., Split]
SEEDS = (11, 12, 13)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"class": self.second(self.first(inputs).relu())}


def together(
    cpu: Fit, networks: list[nn.Module], tasks: tuple[Task, ...], splits: tuple[Split, Split], settings: Training
) -> tuple[list[dict[str, Tensor]], FitResult, TogetherModule]:
    module = TogetherModule(networks, tasks, settings, SEEDS[: len(networks)])
    result = cpu(module, *splits, settings=settings, seed=0, name="together")
    assert isinstance(result.network, Stacked)
    return [result.network.member_state(index) for index in range(len(networks))], result, module


def alone(
    cpu: Fit, network: nn.Module, tasks: tuple[Task, ...], splits: tuple[Split, Split], settings: Training, seed: int
) -> FitResult:
    return cpu(BaseModule(network, tasks, settings), *splits, settings=settings, seed=seed, name="alone")


@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [
        ({"optimizer": "sgd", "lr": 0.05}, 5e-4),
        ({"optimizer": "adam"}, 2e-3),
        ({"optimizer": "adamw", "weight_decay": 0.1}, 2e-3),
        ({"optimizer": "sgd", "lr": 0.1, "gradient_clip": 0.3}, 5e-4),
        ({"optimizer": "sgd", "lr": 0.05, "accumulate": 3, "weight_decay": 0.01}, 5e-4),
    ],
    ids=["sgd", "adam", "adamw", "clipped", "accumulated"],
)
def test_members_equal_those_that_are_trained_alone(
    cpu: Fit,
    tasks: tuple[Task, ...],
    make_network: Make,
    make_split: Examples,
    fields: dict[str, object],
    tolerance: float,
) -> None:
    settings = Training(**{"epochs": 8, "batch_size": 8, "keep": "last", **fields})  # 56 steps, the last of 6 examples
    splits = make_split(54), make_split(21, 1)
    states, result, _ = together(cpu, [make_network(tasks, seed=seed) for seed in SEEDS], tasks, splits, settings)
    losses = []
    for state, seed in zip(states, SEEDS, strict=True):
        other = alone(cpu, make_network(tasks, seed=seed), tasks, splits, settings, seed)
        torch.testing.assert_close(state, dict(other.network.state_dict()), rtol=0, atol=tolerance)
        losses.append([(row["train/loss"], row["validation/loss"]) for row in other.history])
    means = torch.tensor(losses).mean(0)
    ours = torch.tensor([(row["train/loss"], row["validation/loss"]) for row in result.history])
    torch.testing.assert_close(ours, means, rtol=1e-3, atol=1e-4)


def test_each_member_keeps_its_own_best_epoch(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    settings = Training(epochs=12, batch_size=8, optimizer="sgd", lr=0.15, schedule="constant")
    splits = make_split(24), make_split(12, 1)
    states, result, module = together(cpu, [make_network(tasks, seed=seed) for seed in SEEDS], tasks, splits, settings)
    others = [alone(cpu, make_network(tasks, seed=seed), tasks, splits, settings, seed) for seed in SEEDS]
    assert module.best_epochs == [other.best_epoch for other in others]
    assert len(set(module.best_epochs)) > 1 and min(module.best_epochs) < 12
    assert module.best_losses == pytest.approx([other.validation_loss for other in others], rel=1e-4)
    assert result.validation_loss == pytest.approx(sum(module.best_losses) / 3)
    for state, other in zip(states, others, strict=True):
        torch.testing.assert_close(state, dict(other.network.state_dict()), rtol=0, atol=2e-3)


def test_one_member_and_members_with_tied_weights(cpu: Fit, make_split: Examples) -> None:
    task = Task(name="class", kind="classification", outputs=6)
    settings = Training(epochs=2, batch_size=8, optimizer="sgd", lr=0.05)
    splits = make_split(24), make_split(12, 1)
    for count in (1, 2):
        networks: list[nn.Module] = [Tied() for _ in range(count)]
        states, _, _ = together(cpu, networks, (task,), splits, settings)
        for network, state, seed in zip(networks, states, SEEDS, strict=False):
            assert torch.equal(state["first.weight"], state["second.weight"])
            other = alone(cpu, network, (task,), splits, settings, seed)
            torch.testing.assert_close(state, dict(other.network.state_dict()), rtol=0, atol=5e-4)


def test_dropout_differs_between_members_and_is_off_in_validation(tasks: tuple[Task, ...], make_network: Make) -> None:
    network = make_network(tasks, dropout=0.5)
    stacked = Stacked([network, network])
    inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    outputs_MNC = stacked.train()(inputs.expand(2, 5, 6))["class"]
    assert not torch.equal(outputs_MNC[0], outputs_MNC[1])
    outputs_MNC = stacked.eval().on_shared(inputs)["class"]
    for member_NC in outputs_MNC:
        torch.testing.assert_close(member_NC, network.eval()(inputs)["class"], rtol=0, atol=1e-6)


def test_given_networks_are_copied(tasks: tuple[Task, ...], make_network: Make) -> None:
    network = make_network(tasks)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stacked = Stacked([network, make_network(tasks, seed=1)])
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert list(stacked.member_state(0)) == list(before)


def test_batches_are_each_members_own(make_split: Examples) -> None:
    split = make_split(10)
    own = [list(TrainingBatches(split, batch_size=4, seed=seed)) for seed in SEEDS]
    stacked = list(StackedBatches([TrainingBatches(split, batch_size=4, seed=seed) for seed in SEEDS]))
    assert [tuple(batch.ids.shape) for batch in stacked] == [(4, 3), (4, 3), (2, 3)]
    for step, batch in enumerate(stacked):
        for member in range(3):
            assert torch.equal(batch.inputs[member], own[member][step].inputs)
            assert torch.equal(batch.targets["class"][member], own[member][step].targets["class"])
            assert torch.equal(batch.ids[:, member], own[member][step].ids)


def test_clipping_is_torchs_own_for_each_member() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, *shape, generator=generator) for shape in ((2, 4), (5,), ())]
    gradients[0][1] *= 0.01
    gradients[1][1] *= 0.01
    gradients[2][1] *= 0.01
    expected = []
    for member in range(3):
        parameters = [nn.Parameter(torch.zeros_like(each[member])) for each in gradients]
        for parameter, each in zip(parameters, gradients, strict=True):
            parameter.grad = each[member].clone()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        expected.append([parameter.grad for parameter in parameters])
    clip_members(gradients, 0.5)
    for member in range(3):
        for each, other in zip(gradients, expected[member], strict=True):
            torch.testing.assert_close(each[member], other)


def test_what_cannot_be_trained_together_is_refused(tasks: tuple[Task, ...], make_network: Make) -> None:
    network = make_network(tasks)
    with pytest.raises(HyperparameterError, match=r"Found `training.patience = 3`. Set training.patience=null"):
        TogetherModule([network], tasks, Training(patience=3), [0])
    normed = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    with pytest.raises(
        HyperparameterError, match="`base_models.train = together` cannot follow BatchNorm's running statistics"
    ):
        check_together([normed, normed], Training())
    fewer = make_network(tasks[:1])
    with pytest.raises(
        HyperparameterError, match=r"Found heads.labels.linear.bias of shape \(2,\) in the first and none"
    ):
        check_together([network, fewer], Training())
