from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from transfuse.metrics import metric_names, per_example, score, scores
from transfuse.types import PredictionError, Task

GOLDEN = Path(__file__).parents[1] / "golden" / "output_fusion" / "metrics_calibration.npz"
EXACT = ("accuracy", "f1_macro", "auroc", "nll", "brier", "ece")


def task(outputs: int) -> Task:
    return Task(name="y", kind="classification", outputs=outputs)


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_golden_values() -> None:
    golden = np.load(GOLDEN)
    found = scores(task(5), torch.tensor(golden["in_logits"]), torch.tensor(golden["in_y"]))
    names = {"auroc": "out_auroc_ovr_macro", "brier": "out_brier_sum", "ece": "out_ece_l1_15"}
    assert tuple(found) == metric_names("classification") == EXACT
    for name, value in found.items():
        tolerance = 1e-6 if name == "ece" else 1e-9
        assert value == pytest.approx(float(golden[names.get(name, f"out_{name}")]), abs=tolerance), name


@pytest.mark.parametrize(("num_examples", "num_classes"), [(3, 2), (40, 2), (60, 3), (300, 7)])
def test_equals_scikit_learn(num_examples: int, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_examples)
    # Rounded, so that scores tie.
    logits = torch.randn(num_examples, num_classes, generator=generator).mul(2).round(decimals=1)
    labels = torch.arange(num_examples) % num_classes
    p = logits.double().softmax(1).numpy()
    p = p / p.sum(1, keepdims=True)
    y = labels.numpy()
    found = scores(task(num_classes), logits, labels)
    auroc = sklearn_metrics.roc_auc_score(y, p[:, 1] if num_classes == 2 else p, multi_class="ovr")
    assert found["auroc"] == pytest.approx(auroc, abs=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(sklearn_metrics.f1_score(y, p.argmax(1), average="macro"), abs=1e-12)
    assert found["nll"] == pytest.approx(sklearn_metrics.log_loss(y, p, labels=range(num_classes)), abs=1e-9)
    assert found["brier"] == pytest.approx(((p - np.eye(num_classes)[y]) ** 2).sum(1).mean(), abs=1e-12)


def test_perfect_predictions() -> None:
    found = scores(task(3), 1000 * torch.eye(3), torch.arange(3))
    assert found == {"accuracy": 1, "f1_macro": 1, "auroc": 1, "nll": 0, "brier": 0, "ece": 0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_and_always_wrong_is_finite_and_floored(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype)
    found = scores(task(2), logits, torch.tensor([1, 0]))
    expected = {"accuracy": 0, "f1_macro": 0, "auroc": 0, "nll": -math.log(1e-12), "brier": 2, "ece": 1}
    assert found == pytest.approx(expected, abs=1e-12)


def test_log_probability_of_a_confident_mistake_is_not_lost() -> None:
    # The float32 probability of class 0 is exactly 1 here.
    assert score(task(2), torch.tensor([[20.0, 0.0]]), torch.tensor([1]), "nll") == pytest.approx(
        20 + math.log1p(math.exp(-20)), abs=1e-12
    )


def test_binary_ranking_survives_probabilities_of_one() -> None:
    logits = torch.tensor([[0.0, 900.0], [0.0, 800.0], [0.0, 700.0]])
    assert score(task(2), logits, torch.tensor([1, 1, 0]), "auroc") == 1


def test_uniform_predictions() -> None:
    found = scores(task(4), torch.zeros(8, 4), torch.arange(8) % 4)
    expected = {
        "accuracy": 0.25,
        "f1_macro": 0.1,
        "auroc": 0.5,
        "nll": math.log(4),
        "brier": 0.75,
        "ece": 0,
    }  # F1 of class 0 is 2 * 2 / (2 * 2 + 6), of the others 0
    assert found == pytest.approx(expected, abs=1e-12)


def test_first_class_wins_ties() -> None:
    assert score(task(3), torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([1]), "accuracy") == 1
    assert score(task(3), torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([2]), "accuracy") == 0


def test_f1_leaves_out_classes_that_are_nowhere() -> None:
    # Class 0: TP 1, FP 1; class 1: FN 1; class 2 is neither a label nor predicted.
    logits = logits_of([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])
    assert score(task(3), logits, torch.tensor([0, 1]), "f1_macro") == pytest.approx((2 / 3 + 0) / 2)


def test_f1_counts_a_class_that_is_only_predicted_as_zero() -> None:
    logits = logits_of([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    assert score(task(3), logits, torch.tensor([0, 0]), "f1_macro") == pytest.approx((2 / 3 + 0) / 2)


def test_auroc_leaves_out_absent_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 4, generator=generator)
    labels = torch.arange(30) % 3  # class 3 never occurs
    p = logits.double().softmax(1).numpy()
    areas = [sklearn_metrics.roc_auc_score(labels.numpy() == c, p[:, c]) for c in range(3)]
    assert score(task(4), logits, labels, "auroc") == pytest.approx(np.mean(areas), abs=1e-12)


def test_auroc_is_left_out_with_one_class_only() -> None:
    found = scores(task(3), torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5).long())
    assert set(EXACT) - set(found) == {"auroc"}


@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
def test_per_example_means_are_the_scores(metric: str) -> None:
    golden = np.load(GOLDEN)
    logits, labels = torch.tensor(golden["in_logits"]), torch.tensor(golden["in_y"])
    values = per_example(task(5), logits, labels, metric)
    assert values.shape == (400,)
    assert values.dtype == torch.float64
    assert float(values.mean()) == pytest.approx(score(task(5), logits, labels, metric), abs=1e-14)


def test_per_example_closed_form() -> None:
    logits = logits_of([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    labels = torch.tensor([1, 2])
    assert per_example(task(3), logits, labels, "nll").tolist() == pytest.approx([math.log(4), -math.log(0.6)])
    assert per_example(task(3), logits, labels, "brier").tolist() == pytest.approx([0.875, 0.24])
    assert per_example(task(3), logits, labels, "accuracy").tolist() == [0, 1]


def test_unlabelled_examples_take_no_part() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, 3, generator=generator)
    labels = torch.arange(20) % 3
    hidden = labels.clone()
    hidden[::4] = -1
    assert scores(task(3), logits, hidden) == scores(task(3), logits[hidden >= 0], labels[hidden >= 0])
    values = per_example(task(3), logits, hidden, "nll")
    assert torch.equal(values.isnan(), hidden < 0)
    assert float(values.nanmean()) == pytest.approx(score(task(3), logits, hidden, "nll"), abs=1e-14)


def test_without_labels_there_are_no_scores() -> None:
    assert scores(task(3), torch.zeros(2, 3), torch.tensor([-1, -1])) == {}
    assert scores(task(3), torch.zeros(0, 3), torch.zeros(0).long()) == {}


def test_inputs_may_be_numpy_and_are_untouched() -> None:
    golden = np.load(GOLDEN)
    logits, labels = golden["in_logits"].copy(), golden["in_y"].copy()
    assert score(task(5), logits, labels, "nll") == pytest.approx(float(golden["out_nll"]), abs=1e-9)
    assert np.array_equal(logits, golden["in_logits"])
    assert np.array_equal(labels, golden["in_y"])


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4).long(), r"\(3, 2\) and \(4,\)"),
        (torch.zeros(3), torch.zeros(3).long(), r"\(3,\) and \(3,\)"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "below 2, the number of its outputs. Found 2"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), "are NaN"),
    ],
)
def test_what_does_not_fit_is_refused(outputs: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        scores(task(2), outputs, labels)
