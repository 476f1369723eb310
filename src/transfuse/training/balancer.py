"""What the multi-task module asks of a balancer.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from transfuse.training.step import StepInfo

Kind = Literal["loss", "gradient", "jacobian"]


class State(Protocol):
    """What a rule carries from step to step."""

    def state_dict(self) -> dict[str, object]:
        """For a checkpoint."""

    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Goes on from there."""


class LossBalancer(Protocol):
    """T losses become one scalar."""

    kind: ClassVar[Kind]

    @property
    def probe(self) -> int:
        """Batches an epoch on which gradients are compared for the record."""

    @property
    def learning_rate_of_state(self) -> float | None:
        """Of the learned parameters; None where there are none."""

    @property
    def looks_back(self) -> bool:
        """Whether `after_step` is wanted."""

    def init(self, tasks: tuple[str, ...]) -> nn.Module | None:
        """What is carried, for tasks of these names."""

    def combine(self, losses_T: Tensor, state: nn.Module | None = None, step: StepInfo | None = None) -> Tensor:
        """The scalar to minimize."""

    def after_step(self, before_T: Tensor, after_T: Tensor, state: nn.Module | None, step: StepInfo) -> None:
        """Sees a batch's losses before and after the optimizer step."""


class Weighed(Protocol):
    """What a gradient rule found."""

    @property
    def weights_T(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(T,) float64."""

    @property
    def residual(self) -> float:
        """Of the solver, relative."""

    @property
    def failed(self) -> bool:
        """Whether the plain sum took the rule's place."""

    @property
    def dropped(self) -> int:
        """Tasks whose gradient vanishes."""


class DirectionFound(Protocol):
    """What a Jacobian rule found."""

    @property
    def direction_P(self) -> Tensor:
        """(P,)."""

    @property
    def weights_T(self) -> Tensor | None:
        """(T,) float64, where the direction is a weighting of rows."""


class RuleBalancer(Protocol):
    """What gradient and Jacobian rules share."""

    kind: ClassVar[Kind]

    @property
    def heads(self) -> str:
        """`own` or `weighted`."""

    @property
    def transform(self) -> str:
        """Of the losses before the rule."""

    @property
    def every(self) -> int:
        """Steps between decisions."""

    @property
    def backend(self) -> str:
        """Where the tasks' gradients come from."""

    @property
    def reduction(self) -> str:
        """What several devices average."""

    def init(self, tasks: tuple[str, ...]) -> State:
        """What is carried, for tasks of these names."""

    def partition(self, parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Group -> shared parameters that are decided on together."""

    def shown(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """Those of a group whose gradients decide."""


class GradientBalancer(RuleBalancer, Protocol):
    """Weights from the Gramian."""

    def weighing(self, gramian_TT: Tensor, state: Any = None, step: StepInfo | None = None) -> Weighed:
        """The weights."""


class JacobianBalancer(RuleBalancer, Protocol):
    """A direction from the rows."""

    def directing(self, jacobian_TP: Tensor, state: Any = None, step: StepInfo | None = None) -> DirectionFound:
        """The direction."""


Balancer = LossBalancer | GradientBalancer | JacobianBalancer
