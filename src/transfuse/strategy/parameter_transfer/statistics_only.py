"""`parameter_transfer/statistics_only`: a control that tells the scale of weights from their arrangement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.parameter_transfer.ablated import drawn_like, each_tensor
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune


@dataclass(frozen=True, kw_only=True)
class StatisticsOnly(FullFinetune):
    """Each tensor keeps only the mean and standard deviation of the source's; then full fine-tuning.

    Where it does as well as the source's own weights, what helped was their scale. BatchNorm statistics are treated as
    weights are; variances stay positive.

    Reference:
        Raghu et al. 2019, "Transfusion: understanding transfer learning for medical imaging", 1902.07208.
    """

    def carried_state(self, state: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
        """The source's tensors without their arrangement."""
        changed = each_tensor(state, lambda value: drawn_like(value, generator))
        return {key: value.abs() if key.endswith("running_var") else value for key, value in changed.items()}
