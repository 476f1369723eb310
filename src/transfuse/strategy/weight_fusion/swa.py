"""`weight_fusion/swa`: stochastic weight averaging, the mean of the weights over the last part of a training.

Dimensions in tensor names: K snapshots, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.along_training import late_snapshots, require_epochs, require_share
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.trajectory_fusion import TrajectoryFusion

if TYPE_CHECKING:
    from transfuse.training.averaging import RunningMean, Snapshots
    from transfuse.training.progress import Budget


def snapshot_mean(rows_K: Sequence[Tensor] | Tensor) -> Tensor:
    """(1/K) sum_k x_k, summed in float64: a thousand snapshots lose no digit.

    Args:
        rows_K: K tensors (B,).

    Returns:
        (B,) of the values' type.

    Example:
        >>> snapshot_mean(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        tensor([2., 4.])
    """
    total_B = torch.zeros_like(rows_K[0], dtype=torch.float64)
    for values_B in rows_K:
        total_B += values_B
    return total_B.div_(len(rows_K)).to(rows_K[0].dtype)


@dataclass(frozen=True, kw_only=True)
class SWA(TrajectoryFusion):
    """x = (1/K) sum_k x_k over the K snapshots after `start`.

    `merge` takes the snapshots themselves: `start` and `every` say which weights of a run's training are snapshots. In
    a run BatchNorm's statistics are measured anew on the averaged weights.

    Attributes:
        start: share of the training before which there is no snapshot, in [0, 1). The paper averages the last quarter.
        every: epochs between two snapshots, >= 1, counted back from the end, which is one.

    Example:
        >>> SWA().merged([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}, {"w": torch.tensor([6.0])}])
        {'w': tensor([3.])}

    Differs from the paper: the learning rate is that of `training` (the paper's: `training.schedule=constant`, or
    several `training.cycles`).

    Reference:
        Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", 1803.05407, alg. 1.
    """

    start: float = 0.75
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.start)
        require_epochs(self.every)

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The mean over the snapshots, (B,)."""
        return snapshot_mean(block.rows_K)

    def coefficients(self, num_models: int) -> tuple[float, ...]:
        """1/K each."""
        return (1.0 / num_models,) * num_models

    def snapshots(self, budget: Budget) -> Snapshots:
        """The ends of epochs after `start`."""
        return late_snapshots(budget, self.start, self.every)

    def average(self) -> RunningMean:
        """The running mean."""
        from transfuse.training.averaging import RunningMean

        return RunningMean()

    def remedy(self, num_snapshots: int) -> str:
        """An earlier start for few snapshots, a later one for many."""
        return f"Should `start` be {'smaller' if num_snapshots < 2 else 'larger'}? Found `start = {self.start}`."
