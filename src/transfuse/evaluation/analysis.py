"""What test predictions show beyond their scores: calibration, single classes, confusions, risk, diversity.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), E events, O outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from transfuse.evaluation.diversity import Diversity, diversity
from transfuse.evaluation.score import Result
from transfuse.metrics import (
    ByClass,
    Reliability,
    RiskCoverage,
    adaptive_calibration_error,
    confusion,
    nll_at_optimal_temperature,
    nll_floored,
    reliability,
    risk_coverage,
    scores,
)
from transfuse.randomness import make_generator
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.predictions import log_outcomes
from transfuse.types import Scores, Task

_HALVES = 2


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One task's test predictions. What is not defined for its kind, or for a report about members, is None or empty.

    Attributes:
        task: what is predicted.
        calibration: classification and multi-label: confidences against the share of right predictions.
        risk_coverage: the same kinds: the error of the most confident predictions.
        by_class: the same kinds: one entry a class or label.
        confusion_CC: classification: (C, C) counts, entry (i, j) of examples of class i that are taken for j.
        by_target: regression: the metrics of each target.
        diversity: where the predictions of at least two members are there.
        extra: numbers that are not metrics of the leaderboard: `adaptive_ece`, `mce`, `ece_l2`, `optimal_temperature`,
            `nll_at_optimal_temperature`, `aurc` (area under the risk-coverage curve), `nll_floored`.
    """

    task: Task
    calibration: Reliability | None = None
    risk_coverage: RiskCoverage | None = None
    by_class: ByClass | None = None
    confusion_CC: Tensor | None = None
    by_target: tuple[Scores, ...] = ()
    diversity: Diversity | None = None
    extra: Scores = field(default_factory=dict)

    @property
    def numbers(self) -> Scores:
        """`extra` and the numbers of `diversity`."""
        return {**self.extra, **({} if self.diversity is None else self.diversity.numbers)}


def analyse(result: Result, tasks: Sequence[Task], members: Sequence[str]) -> tuple[Analysis, ...]:
    """Analyses what `evaluate` found, task by task.

    Args:
        result: of the evaluation.
        tasks: of the problem.
        members: names of the base models, as many as `result.members` holds.
    """
    return tuple(_analysis(task, result, members) for task in tasks)


def _analysis(task: Task, result: Result, members: Sequence[str]) -> Analysis:
    outputs, targets = result.outputs[task.name], result.targets[task.name]
    of_members = result.members.get(task.name)
    found = None
    if of_members is not None and len(of_members) > 1:
        found = diversity(task, of_members, targets, members)
    if outputs.ndim == 3:  # a report about members: there is no one predictor
        return Analysis(task=task, diversity=found)
    if task.kind == "regression":
        return Analysis(task=task, diversity=found, by_target=_by_target(task, outputs, targets))
    return replace(_of_outcomes(task, outputs, targets), by_class=result.by_class.get(task.name), diversity=found)


def _of_outcomes(task: Task, logits_NC: Tensor, targets: Tensor) -> Analysis:
    outcomes_E = targets.nan_to_num(-1).flatten().long()
    known_E = outcomes_E >= 0
    log_probs_EO = log_outcomes(logits_NC.double(), task.kind)[known_E]
    outcomes_E = outcomes_E[known_E]
    log_confidence_E, predicted_E = log_probs_EO.max(1)
    confidence_E, correct_E = log_confidence_E.exp(), predicted_E == outcomes_E
    calibration = reliability(confidence_E, correct_E)
    curve = risk_coverage(confidence_E, (~correct_E).double())
    extra = {
        "adaptive_ece": float(adaptive_calibration_error(confidence_E, correct_E)),
        "mce": float(calibration.largest_gap),
        "ece_l2": float(calibration.root_mean_square_gap),
        **_at_temperature(log_probs_EO, outcomes_E, _halves(task, targets)[known_E]),
        "aurc": curve.area,
        "nll_floored": float(nll_floored(log_probs_EO, outcomes_E)),
    }
    classes = task.kind == "classification"
    return Analysis(
        task=task,
        calibration=calibration,
        risk_coverage=curve,
        confusion_CC=confusion(outcomes_E, predicted_E, task.outputs) if classes else None,
        extra={name: value for name, value in extra.items() if not math.isnan(value)},
    )


def _halves(task: Task, targets: Tensor) -> Tensor:
    """(E,) two random halves of the examples, the same for all methods; entries of a label set stay together."""
    if len(targets) < _HALVES:
        return torch.zeros(targets.numel(), dtype=torch.int64)
    generator = make_generator("halves of the test split")
    halves_N = folds(targets, len(targets), _HALVES, generator)
    return halves_N if task.kind == "classification" else halves_N.repeat_interleave(task.outputs)


def _at_temperature(log_probs_EO: Tensor, outcomes_E: Tensor, halves_E: Tensor) -> Mapping[str, float]:
    from transfuse.metrics.temperature import optimal_temperature  # it loads scipy

    return {
        "optimal_temperature": optimal_temperature(log_probs_EO, outcomes_E),
        "nll_at_optimal_temperature": nll_at_optimal_temperature(log_probs_EO, outcomes_E, halves_E),
    }


def _by_target(task: Task, values_NC: Tensor, targets_NC: Tensor) -> tuple[Scores, ...]:
    columns = [slice(index, index + 1) for index in range(task.outputs)]
    return tuple(scores(task, values_NC[:, column], targets_NC[:, column]) for column in columns)
