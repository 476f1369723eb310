"""`multi_task/famo`: losses fall at equal rates, at the cost of one more forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting, require_positive
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_BETAS = (0.9, 0.999)
_ADAM_EPS = 1e-8


class Logits(nn.Module):
    """x, and Adam's moments of it: buffers, which no optimizer of the run touches.

    Args:
        tasks: how many.
    """

    x_T: Tensor
    first_T: Tensor
    second_T: Tensor
    steps_T: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        for name in ("x_T", "first_T", "second_T", "steps_T"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.float64))

    def adam(self, at: list[int], gradient_T: Tensor, *, learning_rate: float) -> None:
        """One step on the tasks at `at`; the others rest."""
        first, second = _BETAS
        self.steps_T[at] += 1
        self.first_T[at] = first * self.first_T[at] + (1 - first) * gradient_T
        self.second_T[at] = second * self.second_T[at] + (1 - second) * gradient_T.square()
        mean_T = self.first_T[at] / (1 - first ** self.steps_T[at])
        spread_T = (self.second_T[at] / (1 - second ** self.steps_T[at])).sqrt()
        self.x_T[at] -= learning_rate * mean_T / (spread_T + _ADAM_EPS)


@dataclass(frozen=True, kw_only=True)
class FAMO(LossWeighting):
    """c sum_t z_t log(L_t - b + eps), z = softmax(x), 1/c = sum_t z_t / (L_t - b + eps).

    After each step Adam moves x along `J_softmax(x)^T delta`, delta_t = log L_t before - log L_t after the step on the
    same batch: tasks whose loss fell least weigh more in the next.

    Attributes:
        learning_rate: of x, > 0.
        weight_decay: of x, added to its gradient, >= 0. (The authors' code: 1e-5.)
        floor: b, below all losses.
        eps: > 0.

    Reference:
        Liu et al. 2023, "FAMO: Fast Adaptive Multitask Optimization", 2306.03792.
    """

    learning_rate: float = 0.025
    weight_decay: float = 1e-3
    floor: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("learning_rate", self.learning_rate), ("eps", self.eps)):
            if not value > 0:
                raise HyperparameterError(f"`{name}` should be > 0. Found `{name} = {value}`.")
        if not self.weight_decay >= 0:
            raise HyperparameterError(f"`weight_decay` should be >= 0. Found `weight_decay = {self.weight_decay}`.")

    @property
    def looks_back(self) -> bool:
        """It compares losses before and after a step."""
        return True

    def factor(self, tasks: int) -> float:
        """The weights of the losses sum to 1."""
        return float(tasks)

    def init(self, tasks: tuple[str, ...]) -> Logits:
        """X = 0."""
        return Logits(len(tasks))

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """C sum_t z_t log(L_t - b + eps)."""
        assert isinstance(state, Logits), "from `init`"
        above_T = self._above(losses_T, step)
        z_T = state.x_T[step.positions].softmax(0).to(losses_T)
        c = 1.0 / (z_T / above_T.detach()).sum()
        return c * (z_T * above_T.log()).sum()

    def after_step(self, before_T: Tensor, after_T: Tensor, state: nn.Module | None, step: StepInfo) -> None:
        """Moves x."""
        assert isinstance(state, Logits), "from `init`"
        delta_T = self._above(before_T, step).double().log() - self._above(after_T, step).double().log()
        z_T = state.x_T[step.positions].softmax(0)
        # J_softmax^T delta = z (delta - z . delta)
        gradient_T = z_T * (delta_T.to(z_T) - (z_T * delta_T.to(z_T)).sum())
        gradient_T = gradient_T + self.weight_decay * state.x_T[step.positions]
        state.adam(step.positions, gradient_T, learning_rate=self.learning_rate)

    def _above(self, losses_T: Tensor, step: StepInfo) -> Tensor:
        above_T = losses_T - self.floor
        require_positive(above_T, step, 0.0, self.name)
        return above_T + self.eps
