"""A training that was killed goes on from its checkpoint, and ends with the weights of an unbroken one, bit for bit."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.test_balancers import FEATURE, RULES, TASKS, examples
from transfuse.models import build_mlp
from transfuse.strategy.find import build
from transfuse.strategy.multi_task import PCGrad, UncertaintyWeighting
from transfuse.suggest import CONF
from transfuse.training import (
    AveragedModule,
    BaseModule,
    Devices,
    Fit,
    Fitting,
    MultiTaskModule,
    ParameterGroup,
    Phase,
    Plan,
    TogetherModule,
    Training,
    TransferModule,
)
from transfuse.training import checkpoints as on_disk
from transfuse.training.averaging import Moments, Snapshots
from transfuse.training.checkpoints import Checkpoints
from transfuse.training.module import TrainingModule
from transfuse.types import HyperparameterError, StateMismatchError, Task

SETTINGS = Training(epochs=4, batch_size=16, lr=1e-2, gradient_clip=1.0)  # 6 steps an epoch
KILLED_AT = 15  # in the third epoch: the last checkpoint is that of step 12
ONES = {task.name: 1.0 for task in TASKS}
GIVEN: dict[str, dict[str, Any]] = {
    "static": {"weights": {**ONES, "sign": 3.0}},
    "scheduled": {"start": ONES, "end": {**ONES, "sign": 3.0}, "epochs": 3},
    "grouped": {"inner": PCGrad(every=2)},
    "conflict_gated": {"inner": PCGrad(every=2), "threshold": 0.2},
}
STEMS = sorted(path.stem for path in (CONF / "strategy" / "multi_task").glob("*.yaml"))
BALANCERS = [stem for stem in STEMS if stem not in ("tuned_static", "torchjd")]  # trains `static`; an extra
Make = Callable[[], TrainingModule]


class KilledError(Exception):
    pass


def network(tasks: tuple[Task, ...] = TASKS, *, seed: int = 0, batch_norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = build_mlp(input_shape=(6,), tasks=tasks, widths=[16, 8], dropout=0.2)
    if batch_norm:
        made.backbone.stages[0].append(nn.BatchNorm1d(16))
    return made


def balanced(balancer: Any) -> TrainingModule:
    return MultiTaskModule(network(), TASKS, SETTINGS, balancer)


def averaged() -> TrainingModule:
    made = network(batch_norm=True)
    snapshots = Snapshots(total=24, stride=2, first=5)
    keys = frozenset(key for key, value in made.state_dict().items() if value.is_floating_point())
    return AveragedModule(made, TASKS, SETTINGS, snapshots=snapshots, average=Moments(rank=3), keys=keys)


def transferred() -> TrainingModule:
    """The phases change in mid-epoch, before the checkpoint and after it."""
    made = network(batch_norm=True)
    names = [name for name, _ in made.named_parameters()]
    backbone = tuple(name for name in names if not name.startswith("heads."))
    heads = tuple(name for name in names if name.startswith("heads."))
    phases = [
        Phase(
            name="heads",
            share=0.3,
            groups=(ParameterGroup(names=backbone, trainable=False), ParameterGroup(names=heads)),
        ),
        Phase(
            name="slow",
            share=0.5,
            groups=(
                ParameterGroup(names=backbone, lr_factor=0.1, batch_norm="reestimate"),
                ParameterGroup(names=heads),
            ),
        ),
        Phase(name="all", share=0.2, groups=(ParameterGroup(names=backbone + heads),)),
    ]
    return TransferModule(Plan(network=made, phases=tuple(phases)), TASKS, SETTINGS)


def full(*, seed: int = 0, settings: Training = SETTINGS) -> TrainingModule:
    return BaseModule(network(seed=seed, batch_norm=True), TASKS, settings)


def together(settings: Training = SETTINGS) -> TrainingModule:
    value = TASKS[2:]
    return TogetherModule([network(value, seed=seed) for seed in (1, 2)], value, settings, [1, 2])


MODULES: dict[str, Make] = {
    "base": full,
    "patient": partial(full, settings=Training(epochs=40, batch_size=16, lr=0.1, patience=2)),
    "averaged": averaged,
    "transferred": transferred,
    "best_early": partial(full, settings=Training(epochs=4, batch_size=16, lr=0.5, schedule="constant")),
    "together": together,
    "together_best_early": partial(together, Training(epochs=4, batch_size=16, lr=0.5, schedule="triangular")),
}


def begin(
    module: TrainingModule,
    folder: Path | None,
    *,
    devices: int = 1,
    strategy: str = "auto",
    every: float = 0.0,
    key: str = "key",
) -> Fitting:
    own = Devices(accelerator="cpu", devices=devices, strategy=strategy, progress=False, checkpoint_every=every)
    train, validation = examples(96, 0), examples(32, 1000)
    fit = Fit(own, checkpoints=folder)
    return fit.begin(module, train, validation, settings=module.settings, seed=0, name="toy", key=key)


def finish(
    module: TrainingModule, folder: Path | None, **given: Any
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """All weights at the end, those that were best, what was summed up on the way, and the history."""
    fitting = begin(module, folder, **given)
    fitting.advance(fitting.total_steps)
    result = fitting.result()
    tensors = {f"module/{name}": value.clone() for name, value in module.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in result.network.state_dict().items()}
    average = module.progress.average
    tensors |= {f"mean/{name}": value for name, value in average.get("mean", {}).items()}
    tensors |= {f"spread/{name}": value for name, value in average.get("spread", {}).items()}
    rows = [{name: value for name, value in row.items() if name != "cost/step_ms"} for row in result.history]
    return tensors, rows


def dying(module: TrainingModule, die: Callable[[], None]) -> TrainingModule:
    """Ends in the middle of step `KILLED_AT`."""
    step_with = module.step_with

    def step(*arguments: Any) -> None:
        if module.progress.step == KILLED_AT:
            die()
        step_with(*arguments)

    module.step_with = step  # type: ignore[method-assign]
    return module


def fail() -> None:
    raise KilledError


def kill_while_training(module: TrainingModule, folder: Path, **given: Any) -> None:
    fitting = begin(dying(module, fail), folder, **given)
    with pytest.raises(KilledError):
        fitting.advance(fitting.total_steps)


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], value) for name, value in expected[0].items())
    assert repr(found[1]) == repr(expected[1])


def assert_goes_on(make: Make, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    unbroken = finish(make(), None)
    kill_while_training(make(), folder)
    with caplog.at_level(logging.INFO, logger="transfuse"):
        assert_same(finish(make(), folder), unbroken)
    assert "toy goes on from the checkpoint of step 12." in caplog.messages


@pytest.mark.parametrize("stem", BALANCERS)
def test_every_balancer_goes_on_where_it_was(stem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_goes_on(lambda: balanced(build("multi_task", stem, GIVEN.get(stem, {}))), tmp_path, caplog)


@pytest.mark.parametrize("balancer", [*RULES, FEATURE], ids=str)
def test_and_with_every_option(balancer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_goes_on(lambda: balanced(balancer), tmp_path, caplog)


def test_and_a_stateful_aggregator_of_torchjd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    aggregation = importlib.import_module("torchjd.aggregation") if importlib.util.find_spec("torchjd") else None
    if aggregation is None:
        pytest.skip("the extra mtl is not installed")
    assert_goes_on(
        lambda: balanced(build("multi_task", "torchjd", {"aggregator": aggregation.GradVac()})), tmp_path, caplog
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_goes_on_where_it_was(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_goes_on(MODULES[name], tmp_path, caplog)


@pytest.mark.parametrize("name", ["best_early", "together_best_early"])
def test_the_best_epoch_may_lie_before_the_checkpoint(name: str) -> None:
    module = MODULES[name]()
    _, rows = finish(module, None)
    epochs = module.best_epochs if isinstance(module, TogetherModule) else [module.progress.best_epoch]
    assert len(rows) == 4 and max(epochs) <= 2


@pytest.mark.parametrize("stem", ["joint_sum", "uncertainty", "famo", "pcgrad", "nash_mtl", "gradnorm"])
def test_a_process_that_is_killed_loses_nothing_but_time(stem: str, tmp_path: Path) -> None:
    def make() -> TrainingModule:
        return balanced(build("multi_task", stem, {}))

    def train() -> None:
        module = dying(make(), lambda: os.kill(os.getpid(), signal.SIGKILL))
        fitting = begin(module, tmp_path)
        fitting.advance(fitting.total_steps)

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["key-24.ckpt"]
    module = make()
    found = finish(module, tmp_path)
    assert_same(found, finish(make(), None))


def test_two_devices_go_on_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> TrainingModule:
        return balanced(UncertaintyWeighting(probe=0))

    unbroken = finish(make(), None, devices=2)
    fitting = begin(dying(make(), fail), tmp_path, devices=2)
    with pytest.raises(Exception, match="KilledError"):
        fitting.advance(fitting.total_steps)
    assert [path.name for path in tmp_path.iterdir()] == ["key-24.ckpt"]
    with caplog.at_level(logging.INFO, logger="transfuse"):
        assert_same(finish(make(), tmp_path, devices=2), unbroken)
    assert "toy goes on from the checkpoint of step 12." in caplog.messages


@pytest.mark.slow
def test_spawned_processes_write_them_too(tmp_path: Path) -> None:
    def make() -> TrainingModule:
        return balanced(PCGrad())

    first = finish(make(), tmp_path, devices=2, strategy="ddp_spawn")
    assert [path.name for path in tmp_path.iterdir()] == ["key-24.ckpt"]
    assert_same(finish(make(), tmp_path, devices=1), first)  # nothing is left to do


def test_each_piece_of_a_paused_training_ends_as_it_did(tmp_path: Path) -> None:
    def pieces(module: TrainingModule, folder: Path | None) -> list[Any]:
        fitting = begin(module, folder)
        found = []
        for step in (8, 14, 24):
            scores = fitting.advance(step)
            found.append((fitting.step, scores, {k: v.tolist() for k, v in fitting.snapshot().state_dict().items()}))
        return found

    unbroken = pieces(full(), None)
    with pytest.raises(KilledError):
        pieces(dying(full(), fail), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key-14.ckpt", "key-8.ckpt"]
    assert pieces(full(), tmp_path) == unbroken
    assert unbroken[0] != unbroken[1]


def test_a_short_training_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    finish(full(), folder, every=60.0)
    assert not folder.exists()
    assert Devices().checkpoint_every == 60.0
    assert Checkpoints(folder=folder, every=None).of("key") is None
    assert Checkpoints(folder=folder, every=1.0).of(None) is None


def test_another_key_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kill_while_training(full(), tmp_path)
    with caplog.at_level(logging.INFO, logger="transfuse"):
        finish(full(), tmp_path, key="other")
    assert caplog.messages == []


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""], ids=["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_told_and_training_starts_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unbroken = finish(full(), None)
    kill_while_training(full(), tmp_path)
    path = tmp_path / "key-24.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    assert_same(finish(full(), tmp_path), unbroken)
    assert caplog.messages == [
        f"The checkpoint {path} cannot be used (it does not have its checksum). The training starts anew."
    ]


def test_the_checkpoint_of_another_network_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kill_while_training(BaseModule(network(), TASKS, SETTINGS), tmp_path)
    assert_same(finish(full(), tmp_path), finish(full(), None))
    (message,) = caplog.messages
    assert "cannot be used (its weights are those of another network). The training starts anew." in message


@pytest.mark.parametrize("stem", ["pcgrad", "gradnorm", "famo", "uncertainty"])
def test_the_state_of_other_tasks_is_refused(stem: str, tmp_path: Path) -> None:
    balancer: Any = build("multi_task", stem, {})
    kill_while_training(balanced(balancer), tmp_path)
    fewer = MultiTaskModule(network(TASKS[:2]), TASKS[:2], SETTINGS, balancer)
    with pytest.raises(StateMismatchError, match=r"for the tasks kind, sign, value\. Found the tasks kind, sign\."):
        finish(fewer, tmp_path)


def test_a_rules_state_of_other_tasks_is_refused() -> None:
    module = balanced(build("multi_task", "gradnorm", {}))
    fitting = begin(module, None)
    fitting.advance(3)
    module.progress.balancer["rule"]["states"][""]["names"] = ["kind", "sign"]
    with pytest.raises(StateMismatchError, match=r"the tasks kind, sign\. Found the tasks kind, sign, value\."):
        fitting.advance(6)


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unbroken = finish(full(), None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        found = finish(full(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(found, unbroken)
    (message,) = caplog.messages
    assert message.startswith(f"The checkpoint {tmp_path / 'key-24.ckpt'} cannot be written (")
    assert message.endswith("). Is the disk full? The training goes on without it.")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    finish(full(), tmp_path / "file" / "checkpoints")
    assert len(caplog.messages) == 1 and "Not a directory" in caplog.messages[0]


def test_slow_writing_makes_checkpoints_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    written = []

    def slow(path: Path, content: dict[str, Any]) -> None:
        written.append(content["progress"]["step"])
        clock[0] += 3.0

    def tick(module: TrainingModule) -> None:
        clock[0] += 1.0  # a second an epoch

    monkeypatch.setattr(on_disk, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(on_disk, "_replace", slow)
    monkeypatch.setattr(TrainingModule, "prepare_validation", tick)
    settings = Training(epochs=12, batch_size=16)
    finish(full(settings=settings), tmp_path, every=2.0)
    # after 2 epochs of a second; then every 3 * 2 seconds
    assert written == [12, 48]


def test_what_is_stored_elsewhere_is_removed(tmp_path: Path) -> None:
    module = full()
    kill_while_training(module, tmp_path)
    (tmp_path / "key-24-half").touch()  # of a process that was killed while it wrote
    (tmp_path / "other-24.ckpt").touch()
    checkpoints = Checkpoints(folder=tmp_path, every=1.0)
    checkpoints.remove("key")
    assert len(list(tmp_path.iterdir())) == 3  # nobody asked for it here
    checkpoints.of("key")
    checkpoints.remove_all()
    assert [path.name for path in tmp_path.iterdir()] == ["other-24.ckpt"]


def test_the_interval_is_checked() -> None:
    with pytest.raises(
        HyperparameterError, match=r"`checkpoint_every` should be >= 0 and finite\. Found `checkpoint_every = -1`\."
    ):
        Devices(checkpoint_every=-1)
