"""`weight_fusion/ema`: the exponential moving average of the weights along a training.

Dimensions in tensor names: K snapshots, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.trajectory_fusion import TrajectoryFusion
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.averaging import ExponentialMean, Snapshots
    from transfuse.training.progress import Budget


def exponential_mean(rows_K: Sequence[Tensor] | Tensor, decay: float) -> Tensor:
    """m_1 = x_1;  m_k = decay m_(k-1) + (1 - decay) x_k;  in float64, where no step is too small to count.

    Args:
        rows_K: K tensors (B,) in the order of training.
        decay: in [0, 1).

    Returns:
        (B,) m_K, of the values' type.

    Example:
        >>> exponential_mean(torch.tensor([[0.0], [4.0], [8.0]]), decay=0.5)
        tensor([5.])
    """
    mean_B = rows_K[0].to(torch.float64, copy=True)
    for values_B in rows_K[1:]:
        mean_B = mean_B.mul_(decay).add_(values_B, alpha=1 - decay)
    return mean_B.to(rows_K[0].dtype)


@dataclass(frozen=True, kw_only=True)
class EMA(TrajectoryFusion):
    """m <- decay m + (1 - decay) x, from the first snapshot on: the last 1 / (1 - decay) snapshots or so count.

    The first snapshot keeps the share decay^(K-1): a training should have several times 1 / (1 - decay) snapshots; the
    record says where it has not. `merge` takes the snapshots themselves; `every_steps` is of a run's training.

    Attributes:
        decay: in [0, 1); 0 gives the last snapshot.
        every_steps: optimizer steps between two snapshots, >= 1, counted back from the end, which is one.

    Example:
        >>> EMA(decay=0.5).merged([{"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, {"w": torch.tensor([8.0])}])
        {'w': tensor([5.])}

    Reference:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Tarvainen & Valpola 2017,
        "Mean teachers are better role models", 1703.01780, eq. 1.
    """

    decay: float = 0.999
    every_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise HyperparameterError(f"`decay` should be in [0, 1). Found `decay = {self.decay}`.")
        if self.every_steps < 1:
            raise HyperparameterError(f"`every_steps` should be >= 1. Found `every_steps = {self.every_steps}`.")

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The average after the last snapshot, (B,)."""
        return exponential_mean(block.rows_K, self.decay)

    def coefficients(self, num_models: int) -> tuple[float, ...]:
        """decay^(K-1) for the first, (1 - decay) decay^(K-k) for the k-th."""
        later = [(1 - self.decay) * self.decay ** (num_models - 1 - index) for index in range(1, num_models)]
        return (self.decay ** (num_models - 1), *later)

    def snapshots(self, budget: Budget) -> Snapshots:
        """Every `every_steps`-th step."""
        from transfuse.training.averaging import Snapshots

        return Snapshots(total=budget.total_steps, stride=self.every_steps)

    def average(self) -> ExponentialMean:
        """The recursion."""
        from transfuse.training.averaging import ExponentialMean

        return ExponentialMean(decay=self.decay)

    def remedy(self, num_snapshots: int) -> str:
        """A shorter memory, with the share that is due to the first snapshot."""
        share = self.decay ** max(num_snapshots - 1, 0)
        return (
            f"The first snapshot has a share of {share:.2g} of the average: should `decay` be smaller? "
            f"Found `decay = {self.decay}`."
        )
