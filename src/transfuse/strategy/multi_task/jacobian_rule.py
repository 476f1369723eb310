"""Balancers that need the rows of the Jacobian themselves.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from transfuse.strategy.multi_task.rule import Rule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

Blocks = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Directed:
    """What a Jacobian rule found.

    Attributes:
        direction_P: (P,), the optimizer moves along its negative.
        weights_T: (T,) float64 where the direction is a weighting of rows, else None.
    """

    direction_P: Tensor
    weights_T: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class JacobianRule(Rule, ABC):
    """d = f(J) for a rule that sees every coordinate of every task's gradient.

    Class attributes:
        weighs: whether the direction is a weighting of the rows.
    """

    kind: ClassVar[Literal["loss", "gradient", "jacobian"]] = "jacobian"
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every != 1:
            raise HyperparameterError(f"`every` should be 1 for {self.name}. Found `every = {self.every}`.")
        if self.heads == "weighted" and not self.weighs:
            raise HyperparameterError(f"`heads` should be own: {self.name} has no weights. Found `heads = weighted`.")

    @abstractmethod
    def solve(self, jacobian_TP: Tensor, state: RuleState, step: StepInfo) -> Directed:
        """The direction in the scale of the paper.

        Args:
            jacobian_TP: (T, P) gradients of the tasks `step.tasks`; belongs to the caller.
            state: from `init`, changed in place.
            step: where the training is.
        """

    @abstractmethod
    def factor(self, tasks: int) -> float:
        """The constant between `scale=published` and `scale=sum`."""

    def direct(self, blocks: Blocks, state: RuleState | None = None, step: StepInfo | None = None) -> Blocks:
        """The direction.

        Args:
            blocks: parameter name -> (T, *shape) gradients, one row a task; not changed.
            state: from `init`, changed in place; None: a fresh one.
            step: where the training is; None: the first step of tasks without names.

        Returns:
            Parameter name -> (*shape).
        """
        jacobian_TP = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
        direction_P = self.directing(jacobian_TP, state, step).direction_P
        parts = torch.split(direction_P, [block[0].numel() for block in blocks.values()])
        return {name: part.view(block.shape[1:]) for (name, block), part in zip(blocks.items(), parts, strict=True)}

    def directing(self, jacobian_TP: Tensor, state: RuleState | None = None, step: StepInfo | None = None) -> Directed:
        """`direct` of the flat Jacobian (T, P), and the weights where there are any."""
        from transfuse.training.step import StepInfo

        tasks = len(jacobian_TP)
        step = StepInfo.anonymous(tasks) if step is None else step
        state = self.init(step.names) if state is None else state
        if not bool(jacobian_TP.sum(dim=1).isfinite().all()):
            # what is carried stays clean
            return Directed(direction_P=jacobian_TP.sum(dim=0), weights_T=torch.ones(tasks, dtype=torch.float64))
        found = self.solve(jacobian_TP, state, step)
        factor = 1.0
        if self.scale == "sum":
            factor = self.factor(tasks)
        elif self.scale == "sum_norm":
            length = found.direction_P.norm()
            factor = (jacobian_TP.sum(0).norm() / length).item() if length > 0 else 1.0
        if factor == 1.0:
            return found
        return Directed(
            direction_P=found.direction_P * factor,
            weights_T=None if found.weights_T is None else found.weights_T * factor,
        )
