from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from transfuse.models.batch_norm import full_batches
from transfuse.randomness import make_generator
from transfuse.training import BaseModule, Fit, FitResult, ParameterGroup, Phase, Plan, Training, TransferModule
from transfuse.types import Split, Task

TASK = Task(name="class", kind="classification", outputs=3)


class Body(nn.Module):
    """Linear, BatchNorm, dropout twice, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.second = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"class": self.head(self.second(self.first(inputs)))}


def make() -> Body:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Body()
        network(torch.randn(40, 6))  # statistics of a source
    return network


def names(prefix: str) -> tuple[str, ...]:
    return tuple(name for name, _ in make().named_parameters() if name.startswith(prefix))


def part(*prefixes: str, **fields: object) -> ParameterGroup:
    return ParameterGroup(names=sum((names(prefix) for prefix in prefixes), ()), **fields)  # type: ignore[arg-type]


def one(*groups: ParameterGroup) -> tuple[Phase, ...]:
    return (Phase(name="all", share=1.0, groups=groups),)


Run = Callable[..., FitResult]


@pytest.fixture
def run(cpu: Fit, make_split: Callable[..., Split]) -> Run:
    def train(phases: tuple[Phase, ...] | None, pauses: tuple[int, ...] = (), **fields: object) -> FitResult:
        settings = Training(**{"epochs": 3, "batch_size": 8, "lr": 0.01, "keep": "last", **fields})  # type: ignore[arg-type]
        network = make()
        module = (
            BaseModule(network, (TASK,), settings)
            if phases is None
            else TransferModule(Plan(network=network, phases=phases), (TASK,), settings)
        )
        fitting = cpu.begin(module, make_split(50), make_split(20, 1), settings=settings, seed=0, name="transfer")
        for step in (*pauses, fitting.total_steps):
            fitting.advance(step)
        return fitting.result()

    return train


def changed(result: FitResult) -> set[str]:
    before, after = make().state_dict(), result.network.state_dict()
    return {key for key in before if not torch.equal(before[key], after[key])}


def test_one_phase_of_everything_is_plain_training(run: Run) -> None:
    plain, planned = run(None), run(one(part("first", "second", "head")))
    for key, value in plain.network.state_dict().items():
        assert torch.equal(value, planned.network.state_dict()[key])
    assert plain.history == planned.history


def test_frozen_layers_stay_bit_equal_with_their_statistics(run: Run) -> None:
    frozen = part("first", trainable=False, batch_norm="eval")
    result = run(one(frozen, part("second", "head")), weight_decay=0.1, optimizer="adamw")
    assert not any(key.startswith("first") for key in changed(result))
    assert {"second.0.weight", "second.1.running_mean", "head.bias"} <= changed(result)


def test_frozen_parameters_get_no_moments(cpu: Fit, make_split: Callable[..., Split]) -> None:
    settings = Training(epochs=1, batch_size=8)
    phases = one(part("first", "second", trainable=False, batch_norm="eval"), part("head"))
    module = TransferModule(Plan(network=make(), phases=phases), (TASK,), settings)
    cpu(module, make_split(50), make_split(20, 1), settings=settings, seed=0, name="transfer")
    sizes = [len(each["params"]) for each in module.progress.optimizer["param_groups"]]
    assert sizes == [6, 2]  # all are in the optimizer from the first step
    assert set(module.progress.optimizer["state"]) == {6, 7}


def test_a_network_in_eval_mode_gives_the_same_outputs_while_training(
    cpu: Fit, make_split: Callable[..., Split]
) -> None:
    seen: list[tuple[bool, torch.Tensor]] = []
    split = make_split(16)
    network = make()
    network.second.register_forward_hook(lambda layer, inputs, output: seen.append((torch.is_grad_enabled(), output)))
    settings = Training(epochs=2, batch_size=16)
    phases = one(part("first", "second", trainable=False, batch_norm="eval"), part("head"))
    module = TransferModule(Plan(network=network, phases=phases), (TASK,), settings)
    cpu(module, split, split, settings=settings, seed=0, name="transfer")
    (_, first), (_, validated), (_, second), _ = seen
    assert [training for training, _ in seen] == [True, False, True, False]
    for outputs in (first, second):  # neither dropout nor batch statistics, before and after a validation
        torch.testing.assert_close(outputs.sum(0), validated.sum(0), rtol=1e-5, atol=1e-5)


def test_unfreezing_begins_at_its_step(cpu: Fit, make_split: Callable[..., Split]) -> None:
    settings = Training(epochs=4, batch_size=8, keep="last")  # 7 steps an epoch, the phase ends at step 14
    phases = (
        Phase(
            name="head", share=0.5, groups=(part("first", "second", trainable=False, batch_norm="eval"), part("head"))
        ),
        Phase(name="all", share=0.5, groups=(part("first", "second", "head"),)),
    )
    module = TransferModule(Plan(network=make(), phases=phases), (TASK,), settings)
    fitting = cpu.begin(module, make_split(50), make_split(20, 1), settings=settings, seed=0, name="transfer")
    fitting.advance(14)
    assert changed(fitting.result()) == {"head.weight", "head.bias"}
    fitting.advance(15)
    assert {"first.0.weight", "second.0.weight", "first.1.running_mean"} <= {
        key
        for key in make().state_dict()
        if not torch.equal(make().state_dict()[key], module.network.state_dict()[key])
    }


@pytest.mark.parametrize("pauses", [(5,), (9, 10, 11), (10, 17)])
def test_pausing_around_a_phase_changes_nothing(run: Run, pauses: tuple[int, ...]) -> None:
    phases = (
        Phase(
            name="head", share=0.5, groups=(part("first", "second", trainable=False, batch_norm="eval"), part("head"))
        ),
        Phase(
            name="all",
            share=0.5,
            groups=(part("first", lr_factor=0.1), part("second", "head", batch_norm="reestimate")),
        ),
    )
    unbroken, paused = run(phases), run(phases, pauses)
    for key, value in unbroken.network.state_dict().items():
        assert torch.equal(value, paused.network.state_dict()[key]), key
    assert unbroken.history == paused.history


def test_learning_rates_and_decays_are_those_of_the_groups(run: Run) -> None:
    still = run(one(part("first", lr_factor=0.0), part("second", "head")), optimizer="sgd")
    assert not {"first.0.weight", "first.1.bias"} & changed(still)
    fields = {"optimizer": "sgd", "momentum": 0.0, "epochs": 1, "batch_size": 50, "schedule": "constant"}
    decayed = run(one(part("first", "second", weight_decay=0.5), part("head")), **fields)
    plain = run(one(part("first", "second", "head")), **fields)
    before = make().state_dict()["first.0.weight"]
    difference = plain.network.state_dict()["first.0.weight"] - decayed.network.state_dict()["first.0.weight"]
    torch.testing.assert_close(difference, 0.01 * 0.5 * before, rtol=1e-3, atol=1e-6)
    assert torch.equal(plain.network.state_dict()["head.weight"], decayed.network.state_dict()["head.weight"])


def test_reestimated_statistics_are_the_mean_over_full_batches_of_the_final_weights(
    run: Run, make_split: Callable[..., Split]
) -> None:
    result = run(one(part("first", "second", "head", batch_norm="reestimate")))
    inputs = torch.cat(list(full_batches(make_split(50).inputs, 8, make_generator(0, "batch_norm"))))
    with torch.no_grad():
        hidden = result.network.first[0](inputs)
    batches = hidden.reshape(6, 8, 8)
    norm = result.network.first[1]
    torch.testing.assert_close(norm.running_mean, batches.mean(1).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, batches.var(1).mean(0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


def test_layers_of_equal_value_all_move(cpu: Fit, make_split: Callable[..., Split]) -> None:
    network = make()
    with torch.no_grad():
        network.second[0].bias.copy_(network.first[0].bias)
    settings = Training(epochs=1, batch_size=8, keep="last")
    bias = network.first[0].bias.detach().clone()
    phases = one(part("first", trainable=True), part("second", "head"))
    module = TransferModule(Plan(network=network, phases=phases), (TASK,), settings)
    result = cpu(module, make_split(50), make_split(20, 1), settings=settings, seed=0, name="transfer")
    assert not torch.equal(result.network.first[0].bias, bias)
    assert not torch.equal(result.network.first[1].bias, torch.zeros(8))
