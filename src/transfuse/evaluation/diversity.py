"""How the members of a fused model differ on the test split, where their predictions are there.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), E events, O outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.metrics import (
    cohen_kappa,
    disagreement,
    double_fault,
    error_correlation,
    fleiss_kappa,
    kappa,
    log_loss_ambiguity,
    mean_over_pairs,
    oracle_disagreement,
    q_statistic,
    residual_correlation,
    squared_error_ambiguity,
)
from transfuse.strategy.predictions import log_outcomes
from transfuse.types import Scores, Task


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Measures over members, all of them and pair by pair.

    Attributes:
        members: M names.
        pairwise: measure -> (M, M) matrix, NaN where undefined.
        numbers: measure -> mean over pairs, and what is measured over all members at once. A measure that is undefined
            is left out; `<measure>_undefined` is the number of pairs that its mean leaves out, where there are some.
    """

    members: tuple[str, ...]
    pairwise: Mapping[str, Tensor]
    numbers: Scores


def diversity(task: Task, outputs_MNC: Tensor, targets: Tensor, names: Sequence[str]) -> Diversity:
    """Diversity of at least two members, on labelled examples (multi-label, regression: entries).

    Labels and right answers are compared for classes and label sets (`transfuse.metrics.diversity`), residuals for
    regression, in units of the task's scales. `ambiguity` is what the average of all members gains over a member: in
    squared error, or in NLL with the geometric pool.
    """
    measured = _of_values if task.kind == "regression" else _of_outcomes
    pairwise, numbers = measured(task, outputs_MNC, targets)
    for name, measure_MM in pairwise.items():
        mean = mean_over_pairs(measure_MM)
        numbers[name] = mean.value
        if mean.undefined:
            numbers[f"{name}_undefined"] = float(mean.undefined)
    defined = {name: value for name, value in numbers.items() if not math.isnan(value)}
    return Diversity(members=tuple(names), pairwise=pairwise, numbers=defined)


def _of_outcomes(task: Task, outputs_MNC: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    outcomes_E = targets.nan_to_num(-1).flatten().long()
    known_E = outcomes_E >= 0
    log_probs_MEO = log_outcomes(outputs_MNC.double(), task.kind)[:, known_E]
    outcomes_E = outcomes_E[known_E]
    predicted_ME = log_probs_MEO.argmax(2)
    correct_ME = predicted_ME == outcomes_E
    num_labels = log_probs_MEO.shape[2]
    pairwise = {
        "disagreement": disagreement(predicted_ME),
        "oracle_disagreement": oracle_disagreement(correct_ME),
        "q_statistic": q_statistic(correct_ME),
        "error_correlation": error_correlation(correct_ME),
        "kappa": kappa(correct_ME),
        "cohen_kappa": cohen_kappa(predicted_ME, num_labels),
        "double_fault": double_fault(correct_ME),
    }
    numbers = {
        "fleiss_kappa": fleiss_kappa(predicted_ME, num_labels),
        "ambiguity": log_loss_ambiguity(log_probs_MEO, outcomes_E).ambiguity,
    }
    return pairwise, numbers


def _of_values(task: Task, outputs_MNC: Tensor, targets_NC: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    scale_C = torch.tensor(task.scale or (1.0,) * task.outputs, dtype=torch.float64)
    residuals_MNC = (outputs_MNC.double() - targets_NC.double()) / scale_C
    pairwise = {"residual_correlation": residual_correlation(residuals_MNC[:, ~targets_NC.isnan()])}
    return pairwise, {"ambiguity": squared_error_ambiguity(outputs_MNC, targets_NC).ambiguity}
