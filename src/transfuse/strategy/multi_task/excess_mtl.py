"""`multi_task/excess_mtl`: tasks far from their own optimum weigh more.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transfuse.strategy.multi_task.jacobian_rule import Directed, JacobianRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_EPS = 1e-7


@dataclass(frozen=True, kw_only=True)
class ExcessMTL(JacobianRule):
    """w_t ~ w_t exp(step_size e_t): weights follow the tasks' excess risks, estimated to second order.

    `S_t += g_t^2`, `e_t = sum_p g_tp^2 / sqrt(S_tp + 1e-7)`, divided by its value e_first at the start; weights start
    at 1/T and sum to 1. S is kept for every task: T times the shared parameters of memory.

    Without warm-up the first step's own e is not divided, as in the official code: it can decide the weights for good,
    and the gradients' scale matters. With warm-up e_first is the mean over the warm-up, during which weights are equal.

    Attributes:
        step_size: of the weights, > 0.
        warmup_steps: steps that only measure, >= 0; the paper takes 3 epochs.

    Example:
        >>> rule = ExcessMTL(step_size=0.1)
        >>> rule.directing(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).weights_T
        tensor([0.9003, 1.0997], dtype=torch.float64)

    Reference:
        He et al. 2024, "Robust Multi-Task Learning with Excess Risks", 2402.02009.
    """

    step_size: float = 1.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0:
            raise HyperparameterError(f"`step_size` should be > 0. Found `step_size = {self.step_size}`.")
        if self.warmup_steps < 0:
            raise HyperparameterError(f"`warmup_steps` should be >= 0. Found `warmup_steps = {self.warmup_steps}`.")

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """Equal weights; `first` is the sum of e over `measured` steps."""
        names = ("first", "measured")
        zeros = {name: torch.zeros(len(tasks), dtype=torch.float64) for name in names}
        logits = torch.full((len(tasks),), -math.log(len(tasks)), dtype=torch.float64)
        return RuleState(tasks, logits=logits, calls=torch.zeros((), dtype=torch.int64), **zeros)

    def factor(self, tasks: int) -> float:
        """Weights sum to 1."""
        return float(tasks)

    def solve(self, jacobian_TP: Tensor, state: RuleState, step: StepInfo) -> Directed:
        """Updates the sums of squares, then the weights."""
        at, tensors = step.positions, state.tensors
        excess_T = _excess(jacobian_TP, state.rows("squares", jacobian_TP), at)
        if int(tensors["calls"]) < self.warmup_steps:
            tensors["first"][at] += excess_T
            tensors["measured"][at] += 1
        else:
            tensors["logits"][at] = moved(tensors["logits"][at], self.step_size * self._relative(excess_T, state, at))
        tensors["calls"] = tensors["calls"] + 1
        weights_T = tensors["logits"][at].softmax(dim=0)
        return Directed(direction_P=weights_T.to(jacobian_TP) @ jacobian_TP, weights_T=weights_T)

    def _relative(self, excess_T: Tensor, state: RuleState, at: list[int]) -> Tensor:
        """`e / e_first`; a task's very first e is its own e_first."""
        first, measured = state.tensors["first"], state.tensors["measured"]
        new_T = measured[at] == 0
        first[at] += torch.where(new_T, excess_T, 0.0)
        measured[at] += new_T.double()
        relative_T = excess_T / (first[at] / measured[at] + _EPS)
        return torch.where(new_T, excess_T, relative_T) if self.warmup_steps == 0 else relative_T


def moved(logits_T: Tensor, moves_T: Tensor) -> Tensor:
    """Log weights of `w exp(moves)`, whose sum of weights stays: tasks that are not here keep theirs."""
    new_T = logits_T + moves_T
    return new_T + (logits_T.logsumexp(dim=0) - new_T.logsumexp(dim=0))


def _excess(jacobian_TP: Tensor, squares: Tensor, at: list[int]) -> Tensor:
    """`sum_p g_tp^2 / sqrt(S_tp + eps)`, (T,) float64 on the CPU, of sums that this step is added to."""
    found = []
    for row_P, position in zip(jacobian_TP, at, strict=True):
        square_P = row_P.square()
        sums_P = squares[position].add_(square_P)
        found.append((square_P / (sums_P + _EPS).sqrt()).sum(dtype=torch.float64))
    return torch.stack(found).cpu()
