"""`output_fusion/least_squares`: stacked regressions.

Dimensions in tensor names: M members, N examples, C targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.target_pool import TargetPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.simplex import simplex_quadratic
from transfuse.types import EmptyTaskError, HyperparameterError, TaskKind

Constraint = Literal["simplex", "affine", "nonnegative", "none"]
_CONSTRAINTS = ("simplex", "affine", "nonnegative", "none")


def stacked_regression(
    values_MN: Tensor,
    targets_N: Tensor,
    *,
    constraint: Constraint = "simplex",
    intercept: bool = False,
    ridge: float = 0.0,
) -> tuple[Tensor, float]:
    """`argmin_{w, b} sum_n (sum_m w_m f_mn + b - y_n)^2 + ridge |w|^2`.

    Args:
        values_MN: (M, N) predictions of the members for one target.
        targets_N: (N,) the truth in the same unit, N >= 1.
        constraint: `simplex`: `w >= 0`, `sum w = 1`; `affine`: `sum w = 1`; `nonnegative`: `w >= 0`; or `none`.
        intercept: whether b is fitted (without penalty) or 0.
        ridge: >= 0, in squared units of the target.

    Returns:
        (M,) float64 weights and b. Members that repeat each other share their weight where the constraint allows.

    Example:
        >>> values_MN = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
        >>> stacked_regression(values_MN, torch.tensor([0.75, 1.75, 2.25]))[0]
        tensor([0.7500, 0.2500], dtype=torch.float64)

    Reference:
        Breiman 1996, Stacked regressions (`nonnegative`); Granger & Ramanathan 1984.
    """
    f_NM, y_N = values_MN.double().T, targets_N.double()
    # whatever w is, the best b is mean y - w' mean f
    f_mean_M = f_NM.mean(dim=0) if intercept else torch.zeros_like(f_NM[0])
    y_mean = y_N.mean() if intercept else torch.zeros_like(y_N[0])
    f_NM, y_N = f_NM - f_mean_M, y_N - y_mean
    num_members = len(f_mean_M)
    # ridge |w|^2 is the squared error of M more examples with the target 0
    f_NM = torch.cat([f_NM, math.sqrt(ridge) * torch.eye(num_members, dtype=torch.float64)])
    y_N = torch.cat([y_N, torch.zeros(num_members, dtype=torch.float64)])
    w_M = _solved(f_NM, y_N, constraint)
    return w_M, float(y_mean - w_M @ f_mean_M)


def _solved(f_NM: Tensor, y_N: Tensor, constraint: Constraint) -> Tensor:
    """`argmin_w |Fw - y|^2` under the constraint."""
    num_members = f_NM.shape[1]
    if constraint == "simplex":
        # with sum w = 1: |Fw - y|^2 = w'RR'w, r_m = f_m - y
        residuals_NM = f_NM - y_N[:, None]
        q_MM = residuals_NM.T @ residuals_NM
        w_M, _ = simplex_quadratic(q_MM, torch.zeros_like(q_MM[0]))
        return w_M
    if constraint == "nonnegative":
        from scipy.optimize import nnls

        return torch.from_numpy(nnls(f_NM.numpy(), y_N.numpy())[0])
    if constraint == "none":
        return _least_norm(f_NM, y_N)
    # w = 1/M + Zv, the columns of Z orthonormal and orthogonal to (1, .., 1)
    ones_M1 = torch.ones(num_members, 1, dtype=torch.float64)
    z_MK: Tensor = torch.linalg.qr(ones_M1, mode="complete").Q[:, 1:]
    uniform_M = ones_M1.squeeze(1) / num_members
    return uniform_M + z_MK @ _least_norm(f_NM @ z_MK, y_N - f_NM @ uniform_M)


def _least_norm(f_NM: Tensor, y_N: Tensor) -> Tensor:
    """The solution of least norm, where there are several."""
    solution_M1: Tensor = torch.linalg.lstsq(f_NM, y_N[:, None], driver="gelsd").solution
    return solution_M1.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class LeastSquares(OutputFusion):
    """`y = sum_m w_m f_m + b` with the lowest squared error on validation data; each target has its own weights.

    Attributes:
        constraint: `simplex` (no worse than the best member, in sample), `affine` (may have negative weights),
            `nonnegative` (Breiman's), or `none` (ordinary least squares); the looser, the more it fits noise.
        intercept: whether b is fitted; it takes out a common bias.
        ridge: penalty on `|w|^2` beside the sum of squared errors, >= 0, in squared units of the target; with a fixed
            sum it pulls towards equal weights, else towards 0.
    """

    constraint: Constraint = "simplex"
    intercept: bool = False
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if self.constraint not in _CONSTRAINTS:
            raise HyperparameterError(
                f"`constraint` should be simplex, affine, nonnegative or none. Found `constraint = {self.constraint}`."
            )
        if not 0 <= self.ridge < math.inf:
            raise HyperparameterError(f"`ridge` should be >= 0 and finite. Found `ridge = {self.ridge}`.")

    @property
    def fitted(self) -> bool:
        """It reads labels."""
        return True

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Real-valued targets."""
        return frozenset({"regression"})

    @property
    def instead(self) -> str:
        """The same idea for probabilities."""
        return "strategy=output_fusion/weighted_average"

    def combine(self, predictions: Predictions) -> TargetPool:
        """The pool; unlabelled values take no part."""
        columns, intercepts = [], []
        for values_MN, targets_N in zip(predictions.logits_MNC.unbind(2), predictions.truth.unbind(1), strict=True):
            labelled_N = ~targets_N.isnan()
            if not bool(labelled_N.any()):
                raise EmptyTaskError("least_squares needs at least one labelled example a target. Found none.")
            w_M, b = stacked_regression(
                values_MN[:, labelled_N],
                targets_N[labelled_N],
                constraint=self.constraint,
                intercept=self.intercept,
                ridge=self.ridge,
            )
            columns.append(w_M)
            intercepts.append(b)
        weights_MC = torch.stack(columns, dim=1)
        return TargetPool(
            weights_MC,
            intercept_C=torch.tensor(intercepts, dtype=torch.float64),
            diagnostics={"fusion/weight_sum": float(weights_MC.sum(dim=0).mean())},
        )
