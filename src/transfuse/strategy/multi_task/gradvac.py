"""`multi_task/gradvac`: gradients are turned towards the cosines that tasks usually have.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.layers import by_layer
from transfuse.strategy.multi_task.pcgrad import visiting
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_GONE = 1e-14  # squared length, relative to the original one, of a gradient that others have cancelled


@dataclass(frozen=True, kw_only=True)
class GradVac(GradientRule):
    """PCGrad with a target cosine t_ij, learned along the training, in place of 0; the gradients are then summed.

    For each task i, `c = e_i`; for each j != i in random order, phi = cos(c J, g_j); where phi < t_ij,
    `c_j += |c J| (t_ij sqrt(1 - phi^2) - phi sqrt(1 - t_ij^2)) / (|g_j| sqrt(1 - t_ij^2) + eps)`; then
    `t_ij := (1 - beta) t_ij + beta phi`. `w = sum_i c`. Targets start at 0.

    Attributes:
        beta: share of the newest cosine in the targets, in [0, 1].
        eps: keeps the division finite for parallel gradients, > 0; relative to the gradients' norms.
        group: `all` shared parameters at once, or each `layer` with its own cosines and targets. Without names of
            parameters (`transfuse.balance`) all are one layer.

    Example:
        >>> GradVac().weigh(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000], dtype=torch.float64)

    Reference:
        Wang et al. 2021, "Gradient Vaccine", 2010.05874. Differs from the paper: beta is the 0.5 of LibMTL and torchjd,
        the paper's is 0.01.
    """

    beta: float = 0.5
    eps: float = 1e-8
    group: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise HyperparameterError(f"`beta` should be in [0, 1]. Found `beta = {self.beta}`.")
        if not self.eps > 0:
            raise HyperparameterError(f"`eps` should be > 0. Found `eps = {self.eps}`.")
        if self.group not in ("all", "layer"):
            raise HyperparameterError(f"`group` should be all or layer. Found `group = {self.group}`.")

    def partition(self, parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """One group, or one a layer."""
        return by_layer(parameters) if self.group == "layer" else super().partition(parameters)

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """Target cosines of 0."""
        return RuleState(tasks, targets=torch.zeros(len(tasks), len(tasks), dtype=torch.float64))

    def factor(self, weights_T: Array) -> float:
        """The paper sums."""
        return 1.0

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """On unit gradients, whose coefficients then go by the ratios of norms."""
        at = np.ix_(step.positions, step.positions)
        targets_TT = state.tensors["targets"].numpy().copy()
        norms_T = np.sqrt(np.diagonal(gramian_TT))
        cosines_TT = gramian_TT / np.outer(norms_T, norms_T)
        orders = visiting(len(norms_T), step, fixed=False)
        units_TT, targets_TT[at] = vaccinate(cosines_TT, targets_TT[at], orders, beta=self.beta, eps=self.eps)
        weights_T: Array = norms_T @ units_TT / norms_T
        state.tensors["targets"] = torch.from_numpy(targets_TT)
        return weights_T, 0.0


def vaccinate(
    gramian_TT: Array, targets_TT: Array, orders: Sequence[Sequence[int]], *, beta: float, eps: float
) -> tuple[Array, Array]:
    """Coefficients (T, T), row i those of task i's turned gradient, and the new targets (T, T).

    Args:
        gramian_TT: (T, T) inner products of the gradients, diagonal above 0.
        targets_TT: (T, T) cosines in [-1, 1].
        orders: row i holds the tasks in the order in which gradient i meets them; i itself is skipped.
        beta: share of the newest cosine in the targets.
        eps: is added to denominators.
    """
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    coefficients_TT, targets_TT = np.eye(len(gramian_TT)), targets_TT.copy()
    for own, order in enumerate(orders):
        for other in order:
            if other == own:
                continue
            phi, length = _cosine(gramian_TT, coefficients_TT[own], own, other, eps)
            target = targets_TT[own, other]
            if phi < target:
                # t sqrt(1 - phi^2) - phi sqrt(1 - t^2) = sin(angle(phi) - angle(t))
                sine = np.sqrt(1.0 - target**2)
                turn = target * np.sqrt(1.0 - phi**2) - phi * sine
                coefficients_TT[own, other] += length * turn / (norms_T[other] * sine + eps)
            targets_TT[own, other] = (1.0 - beta) * target + beta * phi
    return coefficients_TT, targets_TT


def _cosine(gramian_TT: Array, coefficients: Array, own: int, other: int, eps: float) -> tuple[float, float]:
    """Between a turned gradient and an original one, and the turned one's length; 0 where nothing is left of it."""
    square = coefficients @ gramian_TT @ coefficients
    if square <= _GONE * gramian_TT[own, own]:
        return 0.0, 0.0
    length = float(np.sqrt(square))
    cosine = gramian_TT[other] @ coefficients / (length * np.sqrt(gramian_TT[other, other]) + eps)
    return float(np.clip(cosine, -1.0, 1.0)), length
