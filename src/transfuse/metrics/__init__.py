"""Pure functions from predictions to numbers: scores, calibration, delta-m."""

from transfuse.metrics.calibration import (
    Reliability,
    adaptive_calibration_error,
    equal_mass_reliability,
    expected_calibration_error,
    reliability,
)
from transfuse.metrics.delta_m import DELTA_M_METRICS, delta_m, delta_m_literature, unstable_tasks
from transfuse.metrics.names import default_selection_metric, higher_is_better, metric_names, unknown_metric
from transfuse.metrics.scores import per_example, score, scores
from transfuse.metrics.tasks import mean_over_tasks, mean_scores, metric_of, named

__all__ = [
    "DELTA_M_METRICS",
    "Reliability",
    "adaptive_calibration_error",
    "default_selection_metric",
    "delta_m",
    "delta_m_literature",
    "equal_mass_reliability",
    "expected_calibration_error",
    "higher_is_better",
    "mean_over_tasks",
    "mean_scores",
    "metric_names",
    "metric_of",
    "named",
    "per_example",
    "reliability",
    "score",
    "scores",
    "unknown_metric",
    "unstable_tasks",
]
