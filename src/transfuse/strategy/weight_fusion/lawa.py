"""`weight_fusion/lawa`: the mean of the weights at the ends of the last epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from transfuse.state_dict import require_list
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.swa import snapshot_mean
from transfuse.strategy.weight_fusion.trajectory_fusion import TrajectoryFusion
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.averaging import RunningMean, Snapshots
    from transfuse.training.progress import Budget


@dataclass(frozen=True, kw_only=True)
class LAWA(TrajectoryFusion):
    """x = (1/k) sum of the last k snapshots; in a run the ends of its last k epochs.

    `merge` takes snapshots in the order of training and reads the last k of them alone.

    Attributes:
        last: k, >= 1; all where there are fewer.

    Example:
        >>> LAWA(last=2).merged([{"w": torch.tensor([9.0])}, {"w": torch.tensor([2.0])}, {"w": torch.tensor([6.0])}])
        {'w': tensor([4.])}

    Differs from the paper: it replaces the weights at the end of training alone, and not after each epoch.

    Reference:
        Kaddour 2022, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
        2209.14981.
    """

    last: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last < 1:
            raise HyperparameterError(f"`last` should be >= 1. Found `last = {self.last}`.")

    def merged(
        self,
        state_dicts: Sequence[Mapping[str, Any]],
        base: Mapping[str, Any] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
        masks: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The merge of the last k state dicts; the others are not read."""
        require_list(state_dicts, "`state_dicts`")
        names = names or [f"model {index}" for index in range(len(state_dicts))]
        return super().merged(state_dicts[-self.last :], base, statistics, masks, seed, names[-self.last :])

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The mean over the last snapshots, (B,)."""
        return snapshot_mean(block.rows_K[-self.last :])

    def coefficients(self, num_models: int) -> tuple[float, ...]:
        """1/k for the last k, 0 for others."""
        count = min(self.last, num_models)
        return (0.0,) * (num_models - count) + (1.0 / count,) * count

    def snapshots(self, budget: Budget) -> Snapshots:
        """The ends of the last k epochs."""
        from transfuse.training.averaging import Snapshots

        total, epoch = budget.total_steps, budget.epoch_steps
        return Snapshots(total=total, stride=epoch, first=max(1, total - (self.last - 1) * epoch))

    def average(self) -> RunningMean:
        """The running mean."""
        from transfuse.training.averaging import RunningMean

        return RunningMean()

    def remedy(self, num_snapshots: int) -> str:
        """More snapshots where there is one, fewer where there are many."""
        if num_snapshots < 2:
            return f"Should `last` or training.epochs be larger? Found `last = {self.last}`."
        return f"Should `last` be smaller? Found `last = {self.last}`."
