from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from transfuse.training.losses import task_loss
from transfuse.types import Task


def test_classification_is_the_mean_negative_log_likelihood() -> None:
    outputs_NC = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20) % 4
    task = Task(name="a", kind="classification", outputs=4)
    expected = log_loss(targets.numpy(), outputs_NC.double().softmax(1).numpy())
    assert task_loss(task, outputs_NC, targets).item() == pytest.approx(expected, rel=1e-5)


def test_multilabel_is_the_mean_over_examples_and_labels() -> None:
    task = Task(name="a", kind="multilabel", outputs=2)
    loss = task_loss(task, torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)


def test_regression_is_the_squared_error_in_units_of_the_scale() -> None:
    task = Task(name="a", kind="regression", outputs=2, location=(0.0, 0.0), scale=(2.0, 0.5))
    outputs, targets = torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    expected = np.mean([(1 / 2) ** 2, (1 / 0.5) ** 2, (2 / 2) ** 2, (1 / 0.5) ** 2])
    assert task_loss(task, outputs, targets).item() == pytest.approx(float(expected))


def test_regression_without_a_scale_is_the_plain_squared_error() -> None:
    task = Task(name="a", kind="regression", outputs=1)
    assert task_loss(task, torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == 4.0


def test_half_precision_outputs_are_judged_in_float32() -> None:
    task = Task(name="a", kind="classification", outputs=2)
    loss = task_loss(task, torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), torch.tensor([0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(math.e))


def test_the_scale_of_the_loss_is_left_to_the_module() -> None:
    plain, scaled = (Task(name="a", kind="regression", outputs=1, loss_scale=scale) for scale in (1.0, 9.0))
    outputs, targets = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    assert task_loss(plain, outputs, targets) == task_loss(scaled, outputs, targets)


def test_unlabelled_examples_take_no_part() -> None:
    task = Task(name="y", kind="classification", outputs=3)
    outputs_NC = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets_N = torch.tensor([0, -1, 2, -1, 1])
    loss = task_loss(task, outputs_NC, targets_N)
    torch.testing.assert_close(loss, task_loss(task, outputs_NC[[0, 2, 4]], targets_N[[0, 2, 4]]))
    loss.backward()
    assert outputs_NC.grad is not None and not outputs_NC.grad[[1, 3]].any() and outputs_NC.grad[[0, 2, 4]].any()


def test_without_any_label_there_is_no_loss_and_no_gradient() -> None:
    task = Task(name="y", kind="classification", outputs=3)
    outputs_NC = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task_loss(task, outputs_NC, torch.tensor([-1, -1]))
    loss.backward()
    assert loss.item() == 0 and outputs_NC.grad is not None and torch.equal(outputs_NC.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_what_has_no_label_takes_no_part(kind: str) -> None:
    task = Task(name="y", kind=kind, outputs=2, scale=(2.0, 4.0) if kind == "regression" else ())  # type: ignore[arg-type]
    outputs_NC = torch.tensor([[0.3, -1.0], [2.0, 0.5], [1.0, 1.0]], requires_grad=True)
    targets_NC = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [0.0, 1.0]])
    known = [(0, 0), (2, 0), (2, 1)]
    if kind == "regression":
        parts = [((outputs_NC[at] - targets_NC[at]) / task.scale[at[1]]) ** 2 for at in known]
    else:
        parts = [torch.nn.functional.softplus((1 - 2 * targets_NC[at]) * outputs_NC[at]) for at in known]
    loss = task_loss(task, outputs_NC, targets_NC)
    assert loss.item() == pytest.approx(sum(part.item() for part in parts) / 3)
    loss.backward()
    assert outputs_NC.grad is not None
    assert outputs_NC.grad.isfinite().all()
    assert outputs_NC.grad[0, 1] == 0
    assert (outputs_NC.grad[1] == 0).all()


def test_the_loss_of_no_label_is_zero() -> None:
    task = Task(name="y", kind="regression", outputs=1)
    outputs_NC = torch.ones(2, 1, requires_grad=True)
    loss = task_loss(task, outputs_NC, torch.full((2, 1), math.nan))
    loss.backward()
    assert loss.item() == 0.0
    assert outputs_NC.grad is not None
    assert (outputs_NC.grad == 0).all()
