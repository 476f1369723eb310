"""`multi_task/uncertainty`: losses weighted by learned noise levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting, PerTaskParameter
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class UncertaintyWeighting(LossWeighting):
    """sum_t (exp(-s_t) L_t / 2 + s_t / 2), the log-variances s learned: at its optimum exp(s_t) = L_t.

    Attributes:
        initial: s at the start.
        learning_rate: of s, > 0, at the peak of the schedule; at a network's usual rate s would hardly move.
        form: `kendall`, or `liebel` with log(1 + exp(s_t)) in place of s_t.

    Reference:
        Kendall, Gal & Cipolla 2018, 1705.07115; Liebel & Koerner 2018, 1805.06334.
    """

    initial: float = 0.0
    learning_rate: float = 0.025
    form: str = "kendall"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.initial):
            raise HyperparameterError(f"`initial` should be finite. Found `initial = {self.initial}`.")
        if not self.learning_rate > 0:
            raise HyperparameterError(f"`learning_rate` should be > 0. Found `learning_rate = {self.learning_rate}`.")
        if self.form not in ("kendall", "liebel"):
            raise HyperparameterError(f"`form` should be kendall or liebel. Found `form = {self.form}`.")

    @property
    def learning_rate_of_state(self) -> float:
        """Of s."""
        return self.learning_rate

    def factor(self, tasks: int) -> float:
        """At s = 0 each loss counts half."""
        return 2.0

    def init(self, tasks: tuple[str, ...]) -> PerTaskParameter:
        """S."""
        return PerTaskParameter(len(tasks), self.initial)

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t (exp(-s_t) L_t / 2 + s_t / 2)."""
        assert isinstance(state, PerTaskParameter)
        s_T = state.s_T[step.positions]
        penalty_T = s_T if self.form == "kendall" else nn.functional.softplus(s_T)
        return ((-s_T).exp() * losses_T / 2 + penalty_T / 2).sum()
