from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from transfuse.training import AveragedModule, BaseModule, Devices, Fit, Training
from transfuse.training.averaging import Average, ExponentialMean, Moments, RunningMean, Snapshots
from transfuse.types import Split, Task

Make = Callable[..., nn.Module]
Examples = Callable[..., Split]
SETTINGS = Training(epochs=3, batch_size=8, accumulate=2, keep="last")  # 4 steps an epoch, 12 in all
AVERAGES = [RunningMean(), ExponentialMean(decay=0.7), Moments(rank=3)]


def averaged(tasks: tuple[Task, ...], make_network: Make, average: Average, settings: Training) -> AveragedModule:
    network = make_network(tasks, dropout=0.2)
    snapshots = Snapshots(total=12, stride=2, first=5)  # 6, 8, 10, 12
    keys = frozenset(network.state_dict())
    return AveragedModule(network, tasks, settings, snapshots=snapshots, average=average, keys=keys)


def tensors(kept: object) -> list[Tensor]:
    if isinstance(kept, Tensor):
        return [kept]
    if isinstance(kept, dict):
        return [each for value in kept.values() for each in tensors(value)]
    return [each for value in kept for each in tensors(value)] if isinstance(kept, list) else []


@pytest.mark.parametrize("average", AVERAGES, ids=lambda average: type(average).__name__)
def test_the_average_is_that_of_the_weights_along_a_training_without_it(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, average: Average
) -> None:
    train, validation = make_split(54), make_split(20, 1)
    module = averaged(tasks, make_network, average, SETTINGS)
    result = cpu(module, train, validation, settings=SETTINGS, seed=0, name="averaged")

    plain = BaseModule(make_network(tasks, dropout=0.2), tasks, SETTINGS)
    fitting = cpu.begin(plain, train, validation, settings=SETTINGS, seed=0, name="plain")
    expected: dict[str, object] = {}
    for step in (6, 8, 10, 12):
        fitting.advance(step)
        average.update(expected, fitting.snapshot().state_dict())
    reference = fitting.result()
    assert result.history == reference.history and result.steps == 12
    for key, value in reference.network.state_dict().items():
        assert torch.equal(value, result.network.state_dict()[key])
    assert module.progress.average["count"] == 4
    assert len(tensors(module.progress.average)) == len(tensors(expected))
    assert all(torch.equal(*pair) for pair in zip(tensors(module.progress.average), tensors(expected), strict=True))


@pytest.mark.parametrize("average", AVERAGES, ids=lambda average: type(average).__name__)
def test_a_pause_in_the_middle_of_averaging_changes_no_bit(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, average: Average
) -> None:
    train, validation = make_split(54), make_split(20, 1)
    unbroken = averaged(tasks, make_network, average, SETTINGS)
    cpu(unbroken, train, validation, settings=SETTINGS, seed=0, name="unbroken")
    paused = averaged(tasks, make_network, average, SETTINGS)
    fitting = cpu.begin(paused, train, validation, settings=SETTINGS, seed=0, name="paused")
    counts = []
    for step in (3, 7, 8, 11, 12):
        fitting.advance(step)
        counts.append(paused.progress.average.get("count", 0))
    assert counts == [0, 1, 2, 3, 4]
    found, expected = tensors(paused.progress.average), tensors(unbroken.progress.average)
    assert len(found) == len(expected) and all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_two_processes_bring_the_average_back_and_go_on_with_it(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, tmp_path: Path
) -> None:
    settings = Training(epochs=3, batch_size=16, optimizer="sgd", lr=0.05, keep="last")
    train, validation = make_split(64), make_split(20, 1)
    modules = []
    for fit in (cpu, Fit(Devices(accelerator="cpu", devices=2, strategy="ddp_fork", progress=False), tmp_path)):
        network = make_network(tasks)
        module = AveragedModule(
            network,
            tasks,
            settings,
            snapshots=Snapshots(total=12, stride=2, first=5),
            average=Moments(rank=3),
            keys=frozenset(network.state_dict()),
        )
        fitting = fit.begin(module, train, validation, settings=settings, seed=0, name="averaged")
        for step in (7, 12):
            fitting.advance(step)
        modules.append(module)
    one, two = (module.progress.average for module in modules)
    assert one["count"] == two["count"] == 4
    torch.testing.assert_close(tensors(two), tensors(one), rtol=1e-4, atol=1e-6)
