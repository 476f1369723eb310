from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from tests.evaluation.predicted import MEMBERS, SHAPE, SIZE, TAGS, result_of
from transfuse.evaluation import Analysis, Result, analyse
from transfuse.metrics import (
    adaptive_calibration_error,
    disagreement,
    kappa,
    log_loss_ambiguity,
    maximum_calibration_error,
    mean_over_pairs,
    residual_correlation,
    risk_coverage,
    root_mean_square_calibration_error,
    scores,
)
from transfuse.metrics.temperature import optimal_temperature
from transfuse.types import Task

EXTRA = {"adaptive_ece", "mce", "ece_l2", "optimal_temperature", "nll_at_optimal_temperature", "aurc", "nll_floored"}


def of(task: Task, result: Result | None = None) -> Analysis:
    (found,) = analyse(result_of(task) if result is None else result, [task], MEMBERS)
    return found


def test_classes_are_judged_on_labelled_examples() -> None:
    result, found = result_of(SHAPE), of(SHAPE)
    labelled = result.targets["shape"] >= 0
    log_probs = result.outputs["shape"].double().log_softmax(1)[labelled]
    labels, predicted = result.targets["shape"][labelled], log_probs.argmax(1)
    confidence, right = log_probs.exp().max(1).values, predicted == labels
    assert set(found.extra) == EXTRA
    assert found.extra["adaptive_ece"] == float(adaptive_calibration_error(confidence, right))
    assert found.extra["mce"] == float(maximum_calibration_error(confidence, right))
    assert found.extra["ece_l2"] == float(root_mean_square_calibration_error(confidence, right))
    assert found.extra["aurc"] == risk_coverage(confidence, (~right).double()).area
    assert found.extra["optimal_temperature"] == optimal_temperature(log_probs, labels)
    assert found.extra["nll_floored"] == 0
    assert found.calibration is not None and float(found.calibration.counts.sum()) == 39
    assert found.confusion_CC is not None
    assert found.confusion_CC.tolist() == confusion_matrix(labels, predicted).tolist()
    assert found.by_class is not None
    expected = precision_recall_fscore_support(labels, predicted)
    table = (found.by_class.precision_C, found.by_class.recall_C, found.by_class.f1_C, found.by_class.support_C)
    for column, values in zip(table, expected, strict=True):
        assert column.tolist() == pytest.approx(values.tolist())
    areas = roc_auc_score(labels, log_probs.exp(), multi_class="ovr", average=None)
    assert found.by_class.auroc_C.tolist() == pytest.approx(areas.tolist())


def test_labels_are_judged_entry_by_entry() -> None:
    result, found = result_of(TAGS), of(TAGS)
    known = ~result.targets["tags"].isnan()
    odds, truth = result.outputs["tags"][known].double(), result.targets["tags"][known] == 1
    right = (odds > 0) == truth
    assert set(found.extra) == EXTRA
    assert found.extra["mce"] == pytest.approx(float(maximum_calibration_error(odds.abs().sigmoid(), right)), abs=1e-12)
    assert found.calibration is not None and float(found.calibration.counts.sum()) == 2 * 40 - 3
    assert found.risk_coverage is not None and float(found.risk_coverage.risks_N[-1]) == pytest.approx(
        1 - float(right.double().mean())
    )
    assert found.confusion_CC is None and found.by_class is not None and len(found.by_class.f1_C) == 2


def test_values_are_judged_target_by_target() -> None:
    result, found = result_of(SIZE), of(SIZE)
    for column, values in enumerate(found.by_target):
        outputs, targets = (of_task["size"][:, column : column + 1] for of_task in (result.outputs, result.targets))
        assert values == scores(SIZE, outputs, targets)
    assert len(found.by_target) == 2 and found.extra == {}
    assert found.calibration is found.by_class is found.confusion_CC is found.risk_coverage is None


def test_diversity_is_that_of_the_members_on_labelled_examples() -> None:
    result, found = result_of(SHAPE), of(SHAPE).diversity
    assert found is not None and found.members == MEMBERS
    labelled = result.targets["shape"] >= 0
    labels = result.targets["shape"][labelled]
    log_probs = result.members["shape"][:, labelled].double().log_softmax(2)
    predicted = log_probs.argmax(2)
    assert torch.equal(found.pairwise["disagreement"], disagreement(predicted))
    assert found.numbers["kappa"] == mean_over_pairs(kappa(predicted == labels)).value
    assert found.numbers["ambiguity"] == log_loss_ambiguity(log_probs, labels).ambiguity > 0
    measures = {"disagreement", "oracle_disagreement", "q_statistic", "error_correlation", "kappa", "cohen_kappa"}
    assert set(found.pairwise) == measures | {"double_fault"}
    assert set(found.numbers) == set(found.pairwise) | {"fleiss_kappa", "ambiguity"}
    assert of(SHAPE).numbers == {**of(SHAPE).extra, **found.numbers}


def test_diversity_of_values_is_that_of_residuals_in_units_of_the_scale() -> None:
    result, found = result_of(SIZE), of(SIZE).diversity
    assert found is not None
    residuals = (result.members["size"] - result.targets["size"]).double() / torch.tensor([2.0, 1.0]).double()
    expected = residual_correlation(residuals[:, ~result.targets["size"].isnan()])
    assert torch.allclose(found.pairwise["residual_correlation"], expected, rtol=0, atol=1e-6)
    assert set(found.numbers) == {"residual_correlation", "ambiguity"}


def test_pairs_without_a_value_are_counted() -> None:
    result = result_of(SHAPE)
    perfect = 9.0 * torch.nn.functional.one_hot(result.targets["shape"].clamp(min=0), 3)
    members = torch.cat([perfect[None], result.members["shape"][1:]])
    found = of(SHAPE, replace(result, members={"shape": members})).diversity
    assert found is not None
    assert found.numbers["q_statistic_undefined"] == found.numbers["error_correlation_undefined"] == 2
    assert "disagreement_undefined" not in found.numbers
    twins = of(SHAPE, replace(result, members={"shape": perfect.expand(2, -1, -1)})).diversity
    assert twins is not None and "q_statistic" not in twins.numbers and twins.numbers["q_statistic_undefined"] == 1


def test_a_report_about_members_has_their_diversity_alone() -> None:
    found = of(SHAPE, result_of(SHAPE, report=True))
    assert found == Analysis(task=SHAPE, diversity=found.diversity)
    assert found.diversity is not None


def test_without_members_there_is_no_diversity() -> None:
    assert of(SHAPE, result_of(SHAPE, members=False)).diversity is None
    result = result_of(SHAPE)
    assert of(SHAPE, replace(result, members={"shape": result.members["shape"][:1]})).diversity is None


def test_a_confident_mistake_is_counted_at_the_floor() -> None:
    result = result_of(SHAPE)
    outputs = result.outputs["shape"].clone()
    outputs[0] = torch.tensor([-40.0, 0.0, 0.0])  # of class 0
    assert of(SHAPE, replace(result, outputs={"shape": outputs})).extra["nll_floored"] == 1


def test_one_example_has_no_likelihood_at_the_temperature_of_others() -> None:
    result = result_of(SHAPE, members=False)
    one = replace(
        result, outputs={"shape": result.outputs["shape"][:1]}, targets={"shape": result.targets["shape"][:1]}
    )
    assert set(of(SHAPE, one).extra) == EXTRA - {"nll_at_optimal_temperature"}
