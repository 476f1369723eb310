"""Pure functions from predictions to numbers: scores, calibration, diversity, delta-m."""

from transfuse.metrics.ambiguity import (
    Ambiguity,
    log_loss_ambiguity,
    squared_error_ambiguity,
)
from transfuse.metrics.by_class import (
    ByClass,
    by_column,
    confusion,
)
from transfuse.metrics.calibrated_likelihood import (
    nll_at_optimal_temperature,
)
from transfuse.metrics.calibration import (
    Reliability,
    adaptive_calibration_error,
    adaptive_ece,
    ece,
    ece_l2,
    equal_mass_reliability,
    expected_calibration_error,
    maximum_calibration_error,
    mce,
    reliability,
    root_mean_square_calibration_error,
)
from transfuse.metrics.classification import (
    nll_floored,
)
from transfuse.metrics.delta_m import DELTA_M_METRICS, delta_m, delta_m_literature, normalized, unstable_tasks
from transfuse.metrics.diversity import (
    PairMean,
    cohen_kappa,
    disagreement,
    double_fault,
    error_correlation,
    fleiss_kappa,
    kappa,
    mean_over_pairs,
    oracle_disagreement,
    q_statistic,
    residual_correlation,
)
from transfuse.metrics.gaussian import gaussian_nll, interval_coverage
from transfuse.metrics.names import default_selection_metric, higher_is_better, metric_names, unknown_metric
from transfuse.metrics.scores import per_example, score, scores, scores_and_classes
from transfuse.metrics.selective import (
    RiskCoverage,
    risk_coverage,
)
from transfuse.metrics.tasks import mean_over_tasks, mean_scores, metric_of, named

__all__ = [
    "DELTA_M_METRICS",
    "Ambiguity",
    "ByClass",
    "PairMean",
    "Reliability",
    "RiskCoverage",
    "adaptive_calibration_error",
    "adaptive_ece",
    "by_column",
    "cohen_kappa",
    "confusion",
    "default_selection_metric",
    "delta_m",
    "delta_m_literature",
    "disagreement",
    "double_fault",
    "ece",
    "ece_l2",
    "equal_mass_reliability",
    "error_correlation",
    "expected_calibration_error",
    "fleiss_kappa",
    "gaussian_nll",
    "higher_is_better",
    "interval_coverage",
    "kappa",
    "log_loss_ambiguity",
    "maximum_calibration_error",
    "mce",
    "mean_over_pairs",
    "mean_over_tasks",
    "mean_scores",
    "metric_names",
    "metric_of",
    "named",
    "nll_at_optimal_temperature",
    "nll_floored",
    "normalized",
    "oracle_disagreement",
    "per_example",
    "q_statistic",
    "reliability",
    "residual_correlation",
    "risk_coverage",
    "root_mean_square_calibration_error",
    "score",
    "scores",
    "scores_and_classes",
    "squared_error_ambiguity",
    "unknown_metric",
    "unstable_tasks",
]
