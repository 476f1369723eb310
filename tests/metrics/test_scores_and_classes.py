"""Scores that share their work with the table of classes are the same scores."""

from __future__ import annotations

import pytest
import torch

from transfuse.metrics import scores, scores_and_classes
from transfuse.types import PredictionError, Task


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_of_classes(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    task = Task(name="shape", kind="classification", outputs=num_classes)
    logits_NC = 60 * torch.randn(40, num_classes, generator=generator)
    targets = torch.randint(-1, num_classes, (40,), generator=generator)
    values, found = scores_and_classes(task, logits_NC, targets)
    assert values == scores(task, logits_NC, targets)
    assert list(values) == ["accuracy", "f1_macro", "auroc", "nll", "brier", "ece"]
    assert found is not None and found.support_C.sum() == (targets >= 0).sum()
    assert values["auroc"] == pytest.approx(float(found.auroc_C.mean()), abs=1e-12)


def test_of_labels_with_unlabelled_entries() -> None:
    generator = torch.Generator().manual_seed(0)
    task = Task(name="tags", kind="multilabel", outputs=4)
    logits_NC, targets = torch.randn(30, 4, generator=generator), torch.randint(2, (30, 4), generator=generator).float()
    targets[torch.rand(30, 4, generator=generator) < 0.2] = torch.nan
    values, found = scores_and_classes(task, logits_NC, targets)
    assert values == scores(task, logits_NC, targets)
    assert found is not None and found.support_C.tolist() == (targets == 1).sum(0).tolist()


def test_of_values_and_of_nothing() -> None:
    size, shape = Task(name="size", kind="regression", outputs=1), Task(name="shape", kind="classification", outputs=3)
    values_N1, targets_N1 = torch.arange(4.0)[:, None], torch.tensor([[0.5], [1.0], [2.0], [4.0]])
    assert scores_and_classes(size, values_N1, targets_N1) == (scores(size, values_N1, targets_N1), None)
    assert scores_and_classes(shape, torch.zeros(2, 3), torch.tensor([-1, -1])) == ({}, None)


def test_a_metric_that_is_undefined_is_left_out() -> None:
    task = Task(name="shape", kind="classification", outputs=3)
    values, _ = scores_and_classes(task, torch.eye(3), torch.tensor([1, 1, 1]))
    assert "auroc" not in values and values == scores(task, torch.eye(3), torch.tensor([1, 1, 1]))


def test_predictions_that_do_not_fit_are_refused() -> None:
    task = Task(name="shape", kind="classification", outputs=3)
    with pytest.raises(PredictionError, match="Labels of task shape should be below 2"):
        scores_and_classes(task, torch.zeros(2, 2), torch.tensor([0, 2]))
