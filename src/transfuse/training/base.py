"""The module that trains a network on its tasks with the plain sum of their losses."""

from __future__ import annotations

from typing import final

from torch import Tensor

from transfuse.data.loaders import Batch
from transfuse.training.module import TrainingModule


@final
class BaseModule(TrainingModule):
    """min over theta of `sum_t loss_scale_t L_t(theta)`: base models, `baseline/scratch`, `baseline/single_task`."""

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """sum_t L_t."""
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total
