"""`multi_task/db_mtl`: losses balanced by their logarithms, averaged gradients by their lengths.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from transfuse.strategy.multi_task.jacobian_rule import Directed, JacobianRule
from transfuse.strategy.multi_task.loss_weighting import require_positive
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class DBMTL(JacobianRule):
    """Averages of the gradients of log L_t, stretched to the length of the longest and summed.

    `B := J + (beta / k^sigma) (B - J)`, where the rows of J are gradients of `log(L_t + 1e-8)` and k = 1, 2, ... is the
    step; B starts at 0, so the first step is `(1 - beta) J`. `d = sum_t w_t B_t`, `w_t = max_s |B_s| / |B_t|`. Without
    losses the rows are taken as they are. B is kept for every task: T times the shared parameters of memory.

    Attributes:
        beta: how much of the average is kept, in [0, 1).
        sigma: how fast that falls, >= 0.
        bias_correction: B is divided by the sum of the weights of its gradients, so that the first step is J.

    Example:
        >>> DBMTL(beta=0.0).directing(torch.tensor([[1.0, 0.0], [0.0, 4.0]])).direction_P
        tensor([4.0000, 4.0000])

    Reference:
        Lin et al. 2023, "Dual-Balancing for Multi-Task Learning", 2308.12029. Differs from the reference code: the 1e-8
        beside |B_t| is relative to the longest, so that the scale of the gradients does not matter.
    """

    weighs: ClassVar[bool] = False

    beta: float = 0.9
    sigma: float = 0.5
    bias_correction: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise HyperparameterError(f"`beta` should be in [0, 1). Found `beta = {self.beta}`.")
        if not self.sigma >= 0:
            raise HyperparameterError(f"`sigma` should be >= 0. Found `sigma = {self.sigma}`.")
        if self.transform != "none":
            raise HyperparameterError(
                f"`transform` should be none: db_mtl takes logarithms itself. Found `transform = {self.transform}`."
            )

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """No steps yet; `kept` is the product of the factors on B so far."""
        return RuleState(
            tasks, calls=torch.zeros((), dtype=torch.int64), kept=torch.ones(len(tasks), dtype=torch.float64)
        )

    def factor(self, tasks: int) -> float:
        """The paper sums."""
        return 1.0

    def solve(self, jacobian_TP: Tensor, state: RuleState, step: StepInfo) -> Directed:
        """Averages, then stretches."""
        at, tensors = step.positions, state.tensors
        tensors["calls"] = tensors["calls"] + 1
        decay = self.beta / int(tensors["calls"]) ** self.sigma
        tensors["kept"][at] *= decay
        averages = state.rows("averages", jacobian_TP)
        shrinks_T = _loss_slopes(jacobian_TP, step)
        for row_P, position, slope in zip(jacobian_TP, at, shrinks_T, strict=True):
            averages[position].mul_(decay).add_(row_P, alpha=(1.0 - decay) * slope)
        norms_T = torch.stack([averages[position].norm() for position in at]).double().cpu()
        corrections_T = 1.0 - tensors["kept"][at] if self.bias_correction else torch.ones(len(at), dtype=torch.float64)
        norms_T = norms_T / corrections_T
        weights_T = stretches(norms_T) / corrections_T
        direction_P = torch.zeros_like(jacobian_TP[0])
        for position, weight in zip(at, weights_T.tolist(), strict=True):
            direction_P.add_(averages[position], alpha=weight)
        return Directed(direction_P=direction_P)


def stretches(norms_T: Tensor) -> Tensor:
    """`max_s n_s / n_t`, (T,); finite where a norm is 0, and 1 where all are."""
    longest = norms_T.max()
    return 1.0 / (norms_T / longest + _EPS) if longest > 0 else torch.ones_like(norms_T)


def _loss_slopes(jacobian_TP: Tensor, step: StepInfo) -> list[float]:
    """`d log(L + eps) / d L` of each task; 1 where nobody knows the losses."""
    if step.losses_T is None:
        return [1.0] * len(jacobian_TP)
    require_positive(step.losses_T, step, _EPS, "multi_task/db_mtl")
    slopes: list[float] = (1.0 / (step.losses_T + _EPS).clamp(min=_EPS)).tolist()
    return slopes
