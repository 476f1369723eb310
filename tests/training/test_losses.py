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
