"""Two forked processes that talk over gloo: what DDP must not change, and how it ends when one of them fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, nn

from transfuse.data.loaders import Batch
from transfuse.strategy.multi_task import LossWeighting, UPGrad
from transfuse.training import (
    BaseModule,
    Devices,
    Fit,
    FusionModule,
    MultiTaskModule,
    ParameterGroup,
    Phase,
    Plan,
    Training,
    TransferModule,
)
from transfuse.training.module import TrainingModule
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError, NonFiniteError, Split, Task, TrainingError

Make = Callable[..., nn.Module]
Examples = Callable[..., Split]
TASK = Task(name="class", kind="classification", outputs=3)


class Learned(LossWeighting):
    def init(self, tasks: tuple[str, ...]) -> nn.Module:
        return nn.ParameterList([torch.zeros(len(tasks))])

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        assert state is not None
        (s_T,) = state.parameters()
        return ((-s_T).exp() * losses_T / 2 + s_T / 2).sum()


class Combiner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights_M = nn.Parameter(torch.tensor([0.3, 0.7]))

    def forward(self, logits_MNC: Tensor) -> Tensor:
        return torch.einsum("m,mnc->nc", self.weights_M, logits_MNC)


@pytest.fixture
def two(tmp_path: Path) -> Fit:
    return Fit(Devices(accelerator="cpu", devices=2, strategy="ddp_fork", progress=False), tmp_path)


@pytest.fixture
def no_process_is_left() -> object:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def make_module(kind: str, tasks: tuple[Task, ...], make_network: Make, settings: Training) -> TrainingModule:
    network = make_network(tasks)
    if kind == "base":
        return BaseModule(network, tasks, settings)
    if kind == "rule":
        return MultiTaskModule(network, tasks, settings, UPGrad())
    if kind == "multi_task":
        return MultiTaskModule(network, tasks, settings, Learned(probe=0))  # a probe sees one rank's batch
    if kind == "fusion":
        return FusionModule(Combiner(), TASK, settings)
    names = [name for name, _ in network.named_parameters()]
    backbone = tuple(name for name in names if not name.startswith("heads."))
    heads = tuple(name for name in names if name.startswith("heads."))
    phases = (
        Phase(
            name="heads",
            share=0.5,
            groups=(ParameterGroup(names=backbone, trainable=False), ParameterGroup(names=heads)),
        ),
        Phase(name="all", share=0.5, groups=(ParameterGroup(names=backbone + heads),)),
    )
    return TransferModule(Plan(network=network, phases=phases), tasks, settings)


def member_logits(split: Split) -> Split:
    return Split(inputs=split.inputs.reshape(-1, 2, 3), targets={"class": split.targets["class"]}, ids=split.ids)


def keep_last_states(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[], list[dict[str, Tensor]]]:
    """Each rank writes what it ends with."""
    end = TrainingModule.on_train_end

    def write(self: TrainingModule) -> None:
        torch.save(self.state_dict(), folder / f"rank-{self.global_rank}.pt")
        end(self)

    monkeypatch.setattr(TrainingModule, "on_train_end", write)
    return lambda: [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def test_ranks_that_decide_each_for_itself_stay_equal(
    two: Fit,
    tasks: tuple[Task, ...],
    make_network: Make,
    make_split: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Training(epochs=2, batch_size=8)
    rule = UPGrad(gradient={"backend": "loop", "reduce": "gradient"})
    module = MultiTaskModule(make_network(tasks), tasks, settings, rule)
    last_states = keep_last_states(monkeypatch, tmp_path)
    two(module, make_split(54), make_split(21, 1), settings=settings, seed=0, name="shared")
    left, right = last_states()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("kind", ["base", "multi_task", "rule", "transfer", "fusion"])
def test_ranks_agree_with_each_other_and_with_one_process(
    two: Fit,
    cpu: Fit,
    tasks: tuple[Task, ...],
    make_network: Make,
    make_split: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_process_is_left: None,
    kind: str,
) -> None:
    settings = Training(epochs=2, batch_size=8, optimizer="sgd", lr=0.05, keep="last")
    train, validation = make_split(54), make_split(21, 1)
    if kind == "fusion":
        train, validation = member_logits(train), member_logits(validation)
    joined = make_module(kind, tasks, make_network, settings)
    expected = cpu(joined, train, validation, settings=settings, seed=0, name="joined")
    last_states = keep_last_states(monkeypatch, tmp_path)
    module = make_module(kind, tasks, make_network, settings)
    result = two(module, train, validation, settings=settings, seed=0, name="shared")
    left, right = last_states()
    assert all(torch.equal(left[key], right[key]) for key in left)
    torch.testing.assert_close(left, dict(joined.state_dict()), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        dict(result.network.state_dict()), dict(expected.network.state_dict()), rtol=0, atol=1e-6
    )
    assert (result.steps, result.best_epoch, result.epochs) == (expected.steps, 2, 2)
    for row, other in zip(result.history, expected.history, strict=True):
        assert row == pytest.approx({**other, **{key: row[key] for key in row if key == "cost/step_ms"}}, rel=1e-5)


def test_batch_norm_statistics_end_equal_on_all_ranks(
    two: Fit, make_split: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_states = keep_last_states(monkeypatch, tmp_path)
    settings = Training(epochs=1, batch_size=8)
    module = BaseModule(OneHead(nn.BatchNorm1d(6), nn.Linear(6, 3)), (TASK,), settings)
    result = two(module, make_split(50), make_split(21, 1), settings=settings, seed=0, name="norm")
    left, right = last_states()
    assert "network.body.0.running_var" in left
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert torch.equal(result.network.state_dict()["body.0.running_mean"], left["network.body.0.running_mean"])


def test_each_validation_example_is_seen_exactly_once(
    two: Fit,
    tasks: tuple[Task, ...],
    make_network: Make,
    make_split: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = TrainingModule.validation_step

    def note(self: TrainingModule, batch: Batch, batch_idx: int) -> None:
        with (tmp_path / f"seen-{self.global_rank}").open("a") as file:
            file.writelines(f"{each}\n" for each in batch.ids.tolist())
        step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "validation_step", note)
    validation, settings = make_split(1025, 1), Training(epochs=1, batch_size=8)
    module = BaseModule(make_network(tasks), tasks, settings)
    two(module, make_split(24), validation, settings=settings, seed=0, name="seen")
    seen = [[int(line) for line in (tmp_path / f"seen-{rank}").read_text().split()] for rank in range(2)]
    assert abs(len(seen[0]) - len(seen[1])) <= 2
    assert sorted(seen[0] + seen[1]) == validation.ids.tolist()


def test_pausing_changes_nothing(two: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples) -> None:
    settings, results = Training(epochs=2, batch_size=8), []
    for pauses in ((), (3, 7)):
        module = BaseModule(make_network(tasks, dropout=0.3), tasks, settings)
        fitting = two.begin(module, make_split(54), make_split(21, 1), settings=settings, seed=0, name="paused")
        for step in (*pauses, fitting.total_steps):
            fitting.advance(step)
        results.append(fitting.result())
    for key, value in results[0].network.state_dict().items():
        assert torch.equal(value, results[1].network.state_dict()[key])
    assert [row["step"] for row in results[1].history] == [7, 14]
    assert results[0].history[1] == pytest.approx(results[1].history[1], rel=1e-12)


def test_the_main_process_is_left_as_it_was(
    two: Fit,
    tasks: tuple[Task, ...],
    make_network: Make,
    make_split: Examples,
    tmp_path: Path,
    no_process_is_left: None,
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), dict(os.environ), torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    module = BaseModule(make_network(tasks), tasks, settings := Training(epochs=1, batch_size=8))
    two(module, make_split(24), make_split(9, 1), settings=settings, seed=0, name="clean")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (dict(os.environ), torch.get_num_threads(), signal.getsignal(signal.SIGTERM)) == before[1:]
    assert list(tmp_path.iterdir()) == []


class OneHead(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"class": self.body(inputs)}


class OnRankOne(nn.Module):
    """Does something in rank 1 alone."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.distributed.get_rank() == 1:
            self.action()
        return inputs


class InBackward(nn.Module):
    """Fails in rank 1 alone, after its forward pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.distributed.get_rank() == 1 and inputs.requires_grad:
            inputs.register_hook(lambda gradient: fail())
        return inputs


def fail() -> None:
    raise ValueError("what rank 1 says")


def refuse() -> None:
    raise NonFiniteError("what rank 1\nsays of numbers")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        (OnRankOne(fail), TrainingError, "^failing: ValueError in process 1: what rank 1 says\n"),
        (InBackward(), TrainingError, "^failing: ValueError in process 1: what rank 1 says\n"),
        (OnRankOne(refuse), NonFiniteError, "^what rank 1\nsays of numbers$"),
        (OnRankOne(die), TrainingError, r"^failing: process 1 was ended by SIGKILL\. Was there too little memory\?$"),
    ],
)
def test_a_failure_of_one_rank_arrives_and_ends_the_other(
    two: Fit,
    make_split: Examples,
    no_process_is_left: None,
    layer: nn.Module,
    kind: type[Exception],
    message: str,
) -> None:
    settings = Training(epochs=1, batch_size=8)
    module = BaseModule(OneHead(nn.Linear(6, 3), layer), (TASK,), settings)
    with pytest.raises(kind, match=message) as caught:
        two(module, make_split(24), make_split(9, 1), settings=settings, seed=0, name="failing")
    assert type(caught.value) is kind


def test_a_loss_that_is_not_finite_is_told_as_in_one_process(
    two: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, no_process_is_left: None
) -> None:
    split = make_split(24)
    split.inputs[5] = torch.nan
    module = BaseModule(make_network(tasks), tasks, settings := Training(epochs=1, batch_size=8))
    with pytest.raises(NonFiniteError, match=r"^lost: the training loss is nan in epoch 1 \(step 3\)\. Try a smaller"):
        two(module, split, make_split(9, 1), settings=settings, seed=0, name="lost")


def test_a_batch_size_that_ranks_cannot_share_is_told_before_they_start(
    two: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    module = BaseModule(make_network(tasks), tasks, settings := Training(batch_size=5))
    with pytest.raises(HyperparameterError, match="multiple of the number of devices"):
        two.begin(module, make_split(24), make_split(9, 1), settings=settings, seed=0, name="odd")


@pytest.mark.slow
def test_spawned_processes_train_the_same(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, tmp_path: Path
) -> None:
    spawned = Fit(Devices(accelerator="cpu", devices=2, strategy="ddp_spawn", progress=False), tmp_path)
    settings = Training(epochs=1, batch_size=8, optimizer="sgd")
    results = [
        fit(
            BaseModule(make_network(tasks), tasks, settings),
            make_split(24),
            make_split(9, 1),
            settings=settings,
            seed=0,
            name="spawned",
        )
        for fit in (cpu, spawned)
    ]
    states = [dict(result.network.state_dict()) for result in results]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=1e-6)
