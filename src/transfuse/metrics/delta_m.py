"""Delta-m: how much a multi-task model changes its metrics relative to single-task models, in percent.

Scores are mappings task -> metric -> value. Every metric that `single` lists takes part; `DELTA_M_METRICS` says which
ones to list. T tasks, M_t metrics of task t, V the multi-task and B the single-task value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from transfuse.metrics.names import higher_is_better as direction_of
from transfuse.types import DataError, TaskKind

ByTask = Mapping[str, Mapping[str, float]]

DELTA_M_METRICS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multilabel": ("f1_macro",),
    "regression": ("rmse",),
}
SMALLEST_BASELINE = 1e-8
_STABLE_SHARE = 0.05
_TINY = 1e-12


def delta_m(multi: ByTask, single: ByTask, higher_is_better: Callable[[str], bool] = direction_of) -> float:
    """Mean relative change in percent; **higher is better**; averaged within a task first.

    `100 / T sum_t 1 / M_t sum_m s_tm (V_tm - B_tm) / B_tm`, s = 1 where higher is better, else -1. Negative baselines
    are divided by their absolute value, so that the sign keeps its meaning.

    Args:
        multi: scores of the multi-task model.
        single: scores of the single-task models; its metrics are those that count.
        higher_is_better: direction of a metric by its name.

    Raises:
        DataError: `multi` lacks a metric, a value is not finite, or a baseline is below 1e-8 in absolute value, where
            the ratio means nothing: leave out the tasks that `unstable_tasks` names.

    Reference: Maninis et al., 2019, arXiv:1904.08918. Differs from the paper: the mean within a task comes first.

    >>> round(delta_m({"a": {"accuracy": 0.88}, "b": {"rmse": 1.05}}, {"a": {"accuracy": 0.8}, "b": {"rmse": 1.0}}), 6)
    2.5
    """
    changes = _changes(multi, single, higher_is_better)
    return 100 * _mean([_mean(values) for values in changes])


def delta_m_literature(multi: ByTask, single: ByTask, higher_is_better: Callable[[str], bool] = direction_of) -> float:
    """Mean relative change in percent over all metrics; **lower is better**: the convention of the papers' tables.

    `100 / sum_t M_t sum_t sum_m -s_tm (V_tm - B_tm) / B_tm`; arguments and errors as in `delta_m`. The two conventions
    can disagree in more than the sign, as a task of many metrics weighs more here.

    Reference: the tables of Liu et al., 2021, arXiv:2110.14048, and of those who compare with them.
    """
    changes = _changes(multi, single, higher_is_better)
    return -100 * _mean([change for values in changes for change in values])


def normalized(
    multi: ByTask, single: ByTask, higher_is_better: Callable[[str], bool] = direction_of
) -> dict[str, float]:
    """Task -> its score divided by that of its single-task model; 1: as good, **higher is better**.

    `1 / M_t sum_m V_tm / B_tm` where higher is better; of a metric where lower is better, `B_tm / V_tm`. Arguments and
    errors as in `delta_m`.

    Reference: the normalized accuracy of Ilharco et al., 2023, arXiv:2212.04089, where the metric is the accuracy.

    >>> normalized({"a": {"accuracy": 0.4}, "b": {"rmse": 4.0}}, {"a": {"accuracy": 0.8}, "b": {"rmse": 1.0}})
    {'a': 0.5, 'b': 0.25}
    """
    _changes(multi, single, higher_is_better)  # refuses what cannot be compared
    return {
        task: _mean(
            [
                multi[task][metric] / value if higher_is_better(metric) else value / max(multi[task][metric], _TINY)
                for metric, value in baselines.items()
            ]
        )
        for task, baselines in single.items()
        if baselines
    }


def unstable_tasks(
    single: ByTask, trivial: ByTask | None = None, higher_is_better: Callable[[str], bool] = direction_of
) -> tuple[str, ...]:
    """Tasks that can make delta-m meaningless: a baseline near 0.

    A baseline is unstable below 1e-8 in absolute value and, where lower is better, below 5 % of what the trivial
    predictor (training mean, majority class) has under the same name in `trivial`.
    """

    def unstable(task: str, metric: str, baseline: float) -> bool:
        reference = (trivial or {}).get(task, {}).get(metric, 0.0)
        too_good = not higher_is_better(metric) and baseline < _STABLE_SHARE * reference
        return abs(baseline) < SMALLEST_BASELINE or too_good

    return tuple(
        task for task, values in single.items() if any(unstable(task, name, value) for name, value in values.items())
    )


def _changes(multi: ByTask, single: ByTask, higher_is_better: Callable[[str], bool]) -> list[list[float]]:
    """`s (V - B) / |B|` of each metric, one list a task."""
    if not any(single.values()):
        raise DataError("delta_m needs at least one metric of a single-task model. Found none.")
    return [
        [_change(multi, task, metric, baseline, higher_is_better) for metric, baseline in baselines.items()]
        for task, baselines in single.items()
        if baselines
    ]


def _change(multi: ByTask, task: str, metric: str, baseline: float, higher_is_better: Callable[[str], bool]) -> float:
    value = multi.get(task, {}).get(metric)
    if value is None:
        raise DataError(f"delta_m compares `{metric}` of task {task}, which the multi-task scores do not have.")
    if not (math.isfinite(value) and math.isfinite(baseline)):
        raise DataError(f"delta_m needs finite scores. Found {value} against {baseline} for `{metric}` of task {task}.")
    if abs(baseline) < SMALLEST_BASELINE:
        raise DataError(
            f"delta_m divides by the single-task `{metric}` of task {task}. Found {baseline}. Leave this task out?"
        )
    sign = 1.0 if higher_is_better(metric) else -1.0
    return sign * (value - baseline) / abs(baseline)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
