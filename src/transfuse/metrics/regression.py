"""Metrics of real-valued predictions (N, C) against targets (N, C), in the targets' own units.

A target that is NaN is unlabelled and takes no part. Scalars are NaN where the metric is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def example_squared_error(values_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Squared error of each example, the mean over its targets."""
    return (values_NC - targets_NC).square().nanmean(1)


def example_absolute_error(values_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Absolute error of each example, the mean over its targets."""
    return (values_NC - targets_NC).abs().nanmean(1)


def rmse(values_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Root of the mean squared error, the mean over examples and targets."""
    return (values_NC - targets_NC).square().nanmean().sqrt()


def mae(values_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean absolute error over examples and targets."""
    return (values_NC - targets_NC).abs().nanmean()


def r2(values_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Coefficient of determination `1 - sum (y - f)^2 / sum (y - mean y)^2`, the mean over targets.

    Targets that are constant have none and are left out of the mean.
    """
    residual_C = (values_NC - targets_NC).square().nansum(0)
    total_C = (targets_NC - targets_NC.nanmean(0)).square().nansum(0)
    varies_C = total_C > 0
    return torch.where(varies_C, 1 - residual_C / total_C, torch.nan).nanmean()


METRICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"rmse": rmse, "mae": mae, "r2": r2}
PER_EXAMPLE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rmse": example_squared_error,
    "mae": example_absolute_error,
}
