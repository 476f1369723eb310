from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from transfuse.data.loaders import TrainingBatches
from transfuse.models.predict import predict
from transfuse.randomness import derive_seed
from transfuse.training import BaseModule, Devices, Fit, Training
from transfuse.training.losses import task_loss
from transfuse.training.optimizer import lr_at
from transfuse.types import HyperparameterError, NonFiniteError, Split, Task

Make = Callable[..., nn.Module]
Examples = Callable[..., Split]


def train(
    fit: Fit, network: nn.Module, tasks: tuple[Task, ...], train: Split, validation: Split, settings: Training, **more
):  # type: ignore[no-untyped-def]
    module = BaseModule(network, tasks, settings)
    return fit(module, train, validation, settings=settings, **{"seed": 0, "name": "base model seeds-1", **more})


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_training_equals_a_plain_loop(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, accumulate: int, clip: float | None
) -> None:
    split = make_split(54)
    settings = Training(
        epochs=2, batch_size=8, optimizer="sgd", lr=0.1, accumulate=accumulate, gradient_clip=clip, keep="last"
    )
    result = train(cpu, make_network(tasks), tasks, split, make_split(20, 1), settings)

    network = make_network(tasks)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batches, step, rows = TrainingBatches(split, batch_size=8, seed=derive_seed(0, "order")), 0, []
    for _ in range(2):
        epoch, total = list(batches), 0.0
        for at in range(0, len(epoch), accumulate):
            optimizer.zero_grad()
            few = epoch[at : at + accumulate]
            for batch in few:
                outputs = network(batch.inputs)
                loss = sum(
                    task.loss_scale * task_loss(task, outputs[task.name], batch.targets[task.name]) for task in tasks
                )
                total += loss.item() * len(batch.ids)
                (loss / len(few)).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.param_groups[0]["lr"] = lr_at(settings, step, 2 * -(-len(epoch) // accumulate))
            optimizer.step()
            step += 1
        rows.append(total / 54)

    assert result.steps == step
    torch.testing.assert_close(dict(result.network.state_dict()), dict(network.state_dict()), rtol=1e-5, atol=1e-6)
    assert [row["train/loss"] for row in result.history] == pytest.approx(rows, rel=1e-5)


def test_history_has_the_exact_mean_validation_loss_of_each_task(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    validation = make_split(1100, 1)  # several evaluation batches, the last smaller
    settings = Training(epochs=None, steps=11, batch_size=8)
    result = train(cpu, make_network(tasks), tasks, make_split(54), validation, settings)
    assert [(row["epoch"], row["step"]) for row in result.history] == [(1, 7), (2, 11)]
    assert (result.steps, result.epochs) == (11, 2)
    row = result.history[result.best_epoch - 1]
    outputs = predict(result.network, validation.inputs)
    for task in tasks:
        expected = task.loss_scale * task_loss(task, outputs[task.name], validation.targets[task.name]).item()
        assert row[f"validation/{task.name}/loss"] == pytest.approx(expected, rel=1e-5)
    assert row["validation/loss"] == pytest.approx(sum(row[f"validation/{task.name}/loss"] for task in tasks))
    assert result.validation_loss == row["validation/loss"] == min(each["validation/loss"] for each in result.history)
    assert result.history[0]["lr"] == pytest.approx(lr_at(settings, 6, 11))


def test_one_task_has_one_loss_a_split(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    result = train(cpu, make_network(tasks[:1]), tasks[:1], make_split(20), make_split(20, 1), Training(epochs=1))
    assert set(result.history[0]) == {"epoch", "step", "train/loss", "validation/loss", "lr"}


@pytest.mark.parametrize("pauses", [(3,), (1, 7, 8, 20), (14,), (0, 27, 28)])
def test_pausing_changes_nothing(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, pauses: tuple[int, ...]
) -> None:
    split, validation = make_split(54), make_split(30, 1)
    settings = Training(epochs=4, batch_size=8, lr=0.01, warmup=0.1)
    unbroken = train(cpu, make_network(tasks, dropout=0.3), tasks, split, validation, settings)
    module = BaseModule(make_network(tasks, dropout=0.3), tasks, settings)
    fitting = cpu.begin(module, split, validation, settings=settings, seed=0, name="paused")
    assert fitting.total_steps == 28
    for step in pauses:
        scores = fitting.advance(step)
        assert fitting.step == step
        assert ("validation/loss" in scores) == (step > 0)
        torch.rand(5)  # what others draw meanwhile does not matter
    fitting.advance(fitting.total_steps)
    paused = fitting.result()
    assert equal_states(paused.network, unbroken.network)
    assert paused.history == unbroken.history
    assert (paused.best_epoch, paused.validation_loss, paused.steps) == (
        unbroken.best_epoch,
        unbroken.validation_loss,
        unbroken.steps,
    )


def test_pausing_within_accumulated_epochs_changes_nothing(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    settings = Training(epochs=None, steps=9, batch_size=8, accumulate=3)
    split, validation = make_split(54), make_split(30, 1)  # 7 batches, 3 steps an epoch, the last of 1 batch
    unbroken = train(cpu, make_network(tasks), tasks, split, validation, settings)
    module = BaseModule(make_network(tasks), tasks, settings)
    fitting = cpu.begin(module, split, validation, settings=settings, seed=0, name="paused")
    for step in (2, 3, 7, 9):
        fitting.advance(step)
    assert equal_states(fitting.result().network, unbroken.network)
    assert fitting.result().history == unbroken.history


def test_the_score_at_a_pause_is_that_of_the_weights_there(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    validation, settings = make_split(30, 1), Training(epochs=4, batch_size=8)
    module = BaseModule(make_network(tasks[:1]), tasks[:1], settings)
    fitting = cpu.begin(module, make_split(54), validation, settings=settings, seed=0, name="paused")
    score = fitting.advance(3)["validation/loss"]
    early = fitting.result()
    outputs = predict(early.network, validation.inputs)["class"]
    assert score == pytest.approx(task_loss(tasks[0], outputs, validation.targets["class"]).item(), rel=1e-5)
    assert (early.best_epoch, early.epochs, early.history, early.validation_loss) == (0, 0, (), score)
    fitting.advance(28)
    assert not equal_states(early.network, fitting.result().network)


def test_a_snapshot_is_the_network_at_its_step_and_stays_so(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    settings = Training(epochs=4, batch_size=8, keep="best", schedule="constant")
    module = BaseModule(make_network(tasks), tasks, settings)
    fitting = cpu.begin(module, make_split(40), make_split(20, 1), settings=settings, seed=0, name="x")
    fitting.advance(7)
    network = fitting.snapshot()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert all(torch.equal(value, module.network.state_dict()[key]) for key, value in before.items())
    assert not network.training and all(each.grad is None for each in network.parameters())
    fitting.advance(fitting.total_steps)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in fitting.snapshot().state_dict().items())
    shorter = Training(epochs=None, steps=7, batch_size=8, keep="last", schedule="constant")
    alone = train(cpu, make_network(tasks), tasks, make_split(40), make_split(20, 1), shorter).network
    assert all(torch.equal(value, before[key]) for key, value in alone.state_dict().items())


def test_a_result_before_the_first_step_is_refused(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    module = BaseModule(make_network(tasks), tasks, Training())
    fitting = cpu.begin(module, make_split(54), make_split(9, 1), settings=Training(), seed=0, name="early")
    with pytest.raises(NonFiniteError, match="early: no validation loss was measured"):
        fitting.result()


def test_best_weights_and_patience(cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples) -> None:
    split = make_split(60)
    wrong = make_split(60)
    wrong = Split(inputs=wrong.inputs, targets={"class": (wrong.targets["class"] + 1) % 3}, ids=wrong.ids)
    task = tasks[:1]

    def run(**fields):  # type: ignore[no-untyped-def]
        return train(cpu, make_network(task), task, split, wrong, Training(batch_size=8, lr=0.02, **fields))

    first = run(epochs=1, schedule="constant")
    best = run(epochs=9, schedule="constant", patience=3)
    assert best.best_epoch == 1
    assert best.epochs == 4
    assert equal_states(best.network, first.network)
    last = run(epochs=4, schedule="constant", keep="last")
    assert last.best_epoch == 4
    assert last.validation_loss == last.history[-1]["validation/loss"] > best.validation_loss
    assert not equal_states(last.network, best.network)


def test_a_training_that_patience_ended_does_not_go_on(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    split = make_split(16)
    flipped = Split(inputs=split.inputs, targets={"class": (split.targets["class"] + 1) % 3}, ids=split.ids)
    settings = Training(epochs=9, batch_size=8, lr=0.05, patience=1)
    module = BaseModule(make_network(tasks[:1]), tasks[:1], settings)
    fitting = cpu.begin(module, split, flipped, settings=settings, seed=0, name="patient")
    scores = fitting.advance(8)
    assert fitting.step < 8
    assert fitting.advance(18) == scores
    assert fitting.result().steps == fitting.step


def test_the_result_is_a_network_of_its_own_on_the_cpu_in_evaluation_mode(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    network = make_network(tasks)
    result = train(cpu, network, tasks, make_split(20), make_split(9, 1), Training(epochs=1))
    assert not any(module.training for module in result.network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in result.network.parameters())
    assert {value.data_ptr() for value in network.state_dict().values()}.isdisjoint(
        value.data_ptr() for value in result.network.state_dict().values()
    )
    assert result.seconds > 0


def test_the_callers_random_streams_are_left_alone_and_do_not_matter(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    def run():  # type: ignore[no-untyped-def]
        network = make_network(tasks, dropout=0.5)
        return train(cpu, network, tasks, make_split(20), make_split(9, 1), Training(epochs=2, batch_size=8))

    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = run()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    torch.manual_seed(6)
    assert equal_states(run().network, first.network)


def test_the_seed_decides_order_and_dropout(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    networks = [
        train(
            cpu,
            make_network(tasks),
            tasks,
            make_split(20),
            make_split(9, 1),
            Training(epochs=2, batch_size=8),
            seed=seed,
        ).network
        for seed in (0, 1)
    ]
    assert not equal_states(*networks)


def test_a_training_loss_that_is_not_finite_ends_the_training(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    split = make_split(20)
    split.inputs[7] = torch.nan
    with pytest.raises(
        NonFiniteError,
        match=r"^base model seeds-1: the training loss is nan in epoch 1 \(step 3\)\. Try a smaller training\.lr or",
    ):
        train(cpu, make_network(tasks), tasks, split, make_split(9, 1), Training(epochs=2, batch_size=8))


def test_long_epochs_are_looked_at_every_200_steps(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    split = make_split(450)
    split.inputs[:] = torch.nan
    with pytest.raises(NonFiniteError, match=r"the training loss is nan in epoch 1 \(step 200\)"):
        train(cpu, make_network(tasks), tasks, split, make_split(9, 1), Training(epochs=1, batch_size=2))


def test_a_validation_loss_that_is_not_finite_ends_the_training(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    validation = make_split(9, 1)
    validation.inputs[3] = torch.inf
    with pytest.raises(NonFiniteError, match=r"the validation loss is nan in epoch 1 \(step 3\)"):
        train(cpu, make_network(tasks), tasks, make_split(20), validation, Training(epochs=2, batch_size=8))


def test_nothing_is_printed(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, capfd: pytest.CaptureFixture[str]
) -> None:
    train(cpu, make_network(tasks), tasks, make_split(20), make_split(9, 1), Training(epochs=1))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_bf16_trains_close_to_float32(tasks: tuple[Task, ...], make_network: Make, make_split: Examples) -> None:
    mixed = Fit(Devices(accelerator="cpu", devices=1, precision="bf16-mixed", progress=False))
    full = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    settings = Training(epochs=2, batch_size=8, gradient_clip=1.0)
    results = [
        train(fit, make_network(tasks), tasks, make_split(54), make_split(30, 1), settings) for fit in (mixed, full)
    ]
    assert all(value.dtype != torch.bfloat16 for value in results[0].network.state_dict().values())
    assert results[0].validation_loss != results[1].validation_loss
    assert results[0].validation_loss == pytest.approx(results[1].validation_loss, rel=0.02)


def test_settings_of_fit_and_module_must_agree(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    module = BaseModule(make_network(tasks), tasks, Training(lr=0.1))
    with pytest.raises(HyperparameterError, match="other: `settings` should be those of the module"):
        cpu.begin(module, make_split(9), make_split(9, 1), settings=Training(lr=0.2), seed=0, name="other")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "fsdp"}, "should be one of auto, ddp_spawn, ddp_fork. Found `trainer.strategy = fsdp`"),
        ({"accelerator": "cpu", "devices": 0}, "devices` should be auto or >= 1"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Fit(Devices(**fields))  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told() -> None:
    with pytest.raises(
        HyperparameterError, match=r"needs a GPU that torch can use\. Found none\. Did you mean trainer=cpu"
    ):
        Fit(Devices(accelerator="gpu"))


def test_several_cpu_processes_are_forked() -> None:
    fit = Fit(Devices(accelerator="cpu", devices=2))
    assert (fit.world_size, fit.devices.strategy) == (2, "ddp_fork")
    assert Fit(Devices()).world_size == 1


def test_settings_are_read_without_lightning() -> None:
    code = (
        "import sys; from transfuse.training import Training, Devices; Training(); Devices(); "
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
