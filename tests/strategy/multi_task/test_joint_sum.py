from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask
from transfuse.models.predict import predict
from transfuse.randomness import make_generator
from transfuse.strategy.multi_task import JointSum
from transfuse.training.losses import task_loss
from transfuse.types import EmptyTaskError


def test_the_objective_is_the_plain_sum_and_every_weight_is_one() -> None:
    losses_T = torch.tensor([1.0, 2.0, 0.5], requires_grad=True)
    total = JointSum().combine(losses_T)
    total.backward()
    assert total.item() == 3.5
    assert losses_T.grad is not None and torch.equal(losses_T.grad, torch.ones(3))


def test_one_backbone_serves_all_tasks_and_the_sum_of_losses_falls(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN, VALUE), epochs=20, lr=0.01)
    context = make_context(setting, PerTask(), tmp_path)
    fused = JointSum().apply(context)
    assert fused.network is not None and context.base_models.used() == ()
    names = dict(fused.network.named_parameters())
    assert {name.split(".")[1] for name in names if name.startswith("heads.")} == {"sign", "value"}
    development = context.development
    fresh = setting.architecture.build(development.input_shape, development.tasks, make_generator(0, "init"))

    def total(network: torch.nn.Module) -> float:
        outputs = predict(network, development.validation.inputs)
        losses = [
            task_loss(task, outputs[task.name], development.validation.targets[task.name]) for task in development.tasks
        ]
        return float(sum(losses))

    assert total(fused.network) < 0.7 * total(fresh)
    assert fused.history[-1]["validation/loss"] == pytest.approx(total(fused.network), rel=0.2)


def test_gradient_reaches_the_backbone_from_each_task(tmp_path: Path) -> None:
    """The step on the sum is the sum of the tasks' steps: with SGD and one batch, exactly."""
    setting = make_setting(
        make_development(SIGN, VALUE),
        epochs=None,
        steps=1,
        batch_size=48,
        optimizer="sgd",
        momentum=0.0,
        lr=0.1,
        schedule="constant",
        keep="last",
    )
    context = make_context(setting, PerTask(), tmp_path)
    development = context.development
    trained = JointSum().apply(context).network
    assert trained is not None
    network = setting.architecture.build(development.input_shape, development.tasks, context.generator("init"))
    outputs = network(development.train.inputs)
    loss = sum(task_loss(task, outputs[task.name], development.train.targets[task.name]) for task in development.tasks)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        expected = parameter - 0.1 * parameter.grad
        assert torch.allclose(trained.state_dict()[name], expected, atol=1e-6), name


def test_a_task_without_labels_is_told_before_training(tmp_path: Path) -> None:
    development = make_development(SIGN, VALUE)
    nothing = torch.full_like(development.train.targets["sign"], -1)
    train = replace(development.train, targets={**development.train.targets, "sign": nothing})
    description = make_context(make_setting(development), PerTask(), tmp_path).base_models.description
    with pytest.raises(EmptyTaskError, match="Task sign of data=toy has no label in the training split"):
        JointSum().check(replace(development, train=train), description)
