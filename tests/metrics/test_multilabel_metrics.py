from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from transfuse.metrics import metric_names, per_example, score, scores
from transfuse.types import Task

GOLDEN = Path(__file__).parents[1] / "golden" / "output_fusion" / "multilabel.npz"
PER_EXAMPLE = ("accuracy", "nll", "brier", "hamming_loss")


def task(outputs: int) -> Task:
    return Task(name="y", kind="multilabel", outputs=outputs)


def golden_case() -> tuple[torch.Tensor, torch.Tensor]:
    golden = np.load(GOLDEN)
    p = golden["out_average"]
    return torch.tensor(np.log(p) - np.log1p(-p)), torch.tensor(golden["in_y"]).float()


def test_golden_values() -> None:
    golden = np.load(GOLDEN)
    found = scores(task(6), *golden_case())
    names = {
        "accuracy": "out_subset_accuracy",
        "auroc": "out_auroc_macro",
        "average_precision": "out_average_precision_macro",
        "nll": "out_nll_mean_over_labels",
        "brier": "out_brier_mean_over_labels",
    }
    assert tuple(found) == metric_names("multilabel")
    for name in set(found) - {"ece"}:
        assert found[name] == pytest.approx(float(golden[names.get(name, f"out_{name}")]), abs=1e-8), name
    assert 1 - found["hamming_loss"] == pytest.approx(float(golden["out_label_accuracy"]))


def test_ties_equal_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, 4, generator=generator).round(decimals=0) + 0.25
    targets = (torch.rand(50, 4, generator=generator) < 0.4).float()
    found = scores(task(4), logits, targets)
    p, y = logits.double().sigmoid().numpy(), targets.numpy()
    assert found["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, p, average="macro"), abs=1e-12)
    average_precision = sklearn_metrics.average_precision_score(y, p, average="macro")
    assert found["average_precision"] == pytest.approx(average_precision, abs=1e-12)
    assert found["f1_micro"] == pytest.approx(sklearn_metrics.f1_score(y, p > 0.5, average="micro"), abs=1e-12)
    assert found["hamming_loss"] == pytest.approx(sklearn_metrics.hamming_loss(y, p > 0.5), abs=1e-12)


def test_perfect_and_always_wrong_saturated_logits() -> None:
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right = scores(task(2), 1e4 * (2 * targets - 1), targets)
    assert right == {
        **dict.fromkeys(("accuracy", "f1_macro", "f1_micro", "auroc", "average_precision"), 1.0),
        **dict.fromkeys(("nll", "brier", "ece", "hamming_loss"), 0.0),
    }
    wrong = scores(task(2), -1e4 * (2 * targets - 1), targets)
    assert wrong == pytest.approx(
        {
            **dict.fromkeys(("accuracy", "f1_macro", "f1_micro", "auroc"), 0.0),
            **dict.fromkeys(("brier", "ece", "hamming_loss"), 1.0),
            "nll": -math.log(1e-12),
            "average_precision": 0.5,
        },
        abs=1e-12,
    )


def test_labels_without_positives_or_negatives_are_left_out() -> None:
    # Label 0 varies, label 1 is always 1, label 2 never, and it is never predicted.
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    logits = torch.tensor([[2.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, 1.0, -1.0]])
    found = scores(task(3), logits, targets)
    assert found["auroc"] == pytest.approx(0.5)  # of label 0: one pair right, one wrong
    # Label 0: precision 1 at its first positive, 2/3 at its second; label 1: 1.
    assert found["average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert found["f1_macro"] == pytest.approx((2 / 4 + 1) / 2)


def test_nothing_positive_leaves_out_what_needs_positives() -> None:
    found = scores(task(2), torch.full((3, 2), -1.0), torch.zeros(3, 2))
    assert set(metric_names("multilabel")) - set(found) == {"f1_macro", "f1_micro", "auroc", "average_precision"}
    assert found["accuracy"] == 1


def test_ece_is_over_all_entries() -> None:
    # Confidences 0.8 (right) and 0.8 (wrong): |0.5 - 0.8|; 0.6 (right): |1 - 0.6|.
    logits = torch.tensor([[0.8, 0.2], [0.6, 0.5]], dtype=torch.float64).logit()
    targets = torch.tensor([[1.0, 1.0], [1.0, torch.nan]])
    assert score(task(2), logits, targets, "ece") == pytest.approx((2 * 0.3 + 0.4) / 3, abs=1e-12)


@pytest.mark.parametrize("metric", PER_EXAMPLE)
def test_per_example_means_are_the_scores(metric: str) -> None:
    logits, targets = golden_case()
    values = per_example(task(6), logits, targets, metric)
    assert values.shape == (200,)
    assert float(values.mean()) == pytest.approx(score(task(6), logits, targets, metric), abs=1e-14)


def test_unlabelled_entries_take_no_part() -> None:
    logits, targets = golden_case()
    hidden = targets.clone()
    hidden[:50, 2] = torch.nan
    hidden[7] = torch.nan
    found = scores(task(6), logits, hidden)
    p, y = logits.sigmoid().numpy(), hidden.numpy()
    columns = [(y[:, c][~np.isnan(y[:, c])], p[:, c][~np.isnan(y[:, c])]) for c in range(6)]
    auroc = np.mean([sklearn_metrics.roc_auc_score(labels, q) for labels, q in columns])
    assert found["auroc"] == pytest.approx(auroc, abs=1e-12)
    average_precision = np.mean([sklearn_metrics.average_precision_score(labels, q) for labels, q in columns])
    assert found["average_precision"] == pytest.approx(average_precision, abs=1e-12)
    f1 = np.mean([sklearn_metrics.f1_score(labels, q > 0.5) for labels, q in columns])
    assert found["f1_macro"] == pytest.approx(f1, abs=1e-12)
    labels, q = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    assert found["nll"] == pytest.approx(sklearn_metrics.log_loss(labels, q), abs=1e-9)
    assert found["brier"] == pytest.approx(((q - labels) ** 2).mean(), abs=1e-12)
    assert found["hamming_loss"] == pytest.approx(((q > 0.5) != labels).mean(), abs=1e-12)
    for metric in PER_EXAMPLE:
        assert per_example(task(6), logits, hidden, metric).isnan().nonzero().flatten().tolist() == [7], metric
