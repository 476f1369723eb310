"""Metrics of predicted normal distributions: means and variances (N, C) against targets (N, C), in their own units.

A target that is NaN is unlabelled and takes no part. Scalars are NaN without labels.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from transfuse.types import HyperparameterError, PredictionError


def gaussian_nll(values_NC: Tensor, variances_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean negative log-likelihood `(log(2 pi v) + (y - f)^2 / v) / 2` over examples and targets.

    Args:
        values_NC: (N, C) predicted means f.
        variances_NC: (N, C) predicted variances v > 0.
        targets_NC: (N, C) y; NaN for unlabelled.

    Returns:
        A float64 scalar, in nats; it depends on the targets' units.

    Raises:
        PredictionError: shapes differ, or a variance is not > 0.

    >>> round(float(gaussian_nll(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))), 4)
    0.9189
    """
    values_NC, variances_NC, targets_NC = _checked(values_NC, variances_NC, targets_NC)
    return ((2 * math.pi * variances_NC).log() + (targets_NC - values_NC).square() / variances_NC).nanmean() / 2


def interval_coverage(values_NC: Tensor, variances_NC: Tensor, targets_NC: Tensor, *, level: float = 0.9) -> Tensor:
    """Share of targets inside of the central interval `f +- z sqrt(v)` of probability `level`, ends included.

    Honest variances have a coverage of `level`; a lower one means that they are too small.

    Args:
        values_NC: (N, C) predicted means f.
        variances_NC: (N, C) predicted variances v > 0.
        targets_NC: (N, C) y; NaN for unlabelled.
        level: in (0, 1).

    Returns:
        A float64 scalar in [0, 1].

    Raises:
        HyperparameterError: `level` is out of range.
        PredictionError: shapes differ, or a variance is not > 0.

    >>> targets_NC = torch.tensor([[0.0], [1.6], [1.7], [float("nan")]])
    >>> round(float(interval_coverage(torch.zeros(4, 1), torch.ones(4, 1), targets_NC)), 4)
    0.6667
    """
    if not 0 < level < 1:
        raise HyperparameterError(f"`level` should be in (0, 1). Found `level = {level}`.")
    values_NC, variances_NC, targets_NC = _checked(values_NC, variances_NC, targets_NC)
    half_NC = NormalDist().inv_cdf((1 + level) / 2) * variances_NC.sqrt()
    known_NC = ~targets_NC.isnan()
    inside_NC = (targets_NC - values_NC).abs() <= half_NC
    return inside_NC[known_NC].double().mean()


def _checked(values_NC: Tensor, variances_NC: Tensor, targets_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All in float64 on the CPU."""
    found = [torch.as_tensor(each).detach().to("cpu", torch.float64) for each in (values_NC, variances_NC, targets_NC)]
    if len({tuple(each.shape) for each in found}) > 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in found)
        raise PredictionError(f"Values, variances and targets should have one shape. Found {shapes}.")
    values_NC, variances_NC, targets_NC = found
    if not bool((variances_NC > 0).all()):
        raise PredictionError(f"Variances should be > 0. Found {variances_NC[~(variances_NC > 0)][0].item():g}.")
    return values_NC, variances_NC, targets_NC
