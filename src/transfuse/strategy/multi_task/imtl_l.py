"""`multi_task/imtl_l`: losses brought to one size by learned factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting, PerTaskParameter
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class ImpartialLoss(LossWeighting):
    """sum_t (exp(s_t) L_t - s_t), s learned: at its optimum exp(s_t) L_t = 1.

    With s = -s' it is twice the form of Kendall et al., and has the same optimum.

    Attributes:
        learning_rate: of s, > 0, at the peak of the schedule.

    Reference:
        Liu et al. 2021, "Towards Impartial Multi-task Learning" (ICLR).
    """

    learning_rate: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rate > 0:
            raise HyperparameterError(f"`learning_rate` should be > 0. Found `learning_rate = {self.learning_rate}`.")

    @property
    def learning_rate_of_state(self) -> float:
        """Of s."""
        return self.learning_rate

    def init(self, tasks: tuple[str, ...]) -> PerTaskParameter:
        """s, 0 at first."""
        return PerTaskParameter(len(tasks), 0.0)

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t (exp(s_t) L_t - s_t)."""
        assert isinstance(state, PerTaskParameter), "from `init`"
        s_T = state.s_T[step.positions]
        return (s_T.exp() * losses_T - s_T).sum()
