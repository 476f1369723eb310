"""`parameter_transfer/statistics_only`: a control that tells the scale of weights from their arrangement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.parameter_transfer.ablated import Ablated


@dataclass(frozen=True, kw_only=True)
class StatisticsOnly(Ablated):
    """Each tensor keeps only the mean and standard deviation of the source's; then full fine-tuning.

    Where it does as well as the source's own weights, what helped was their scale.

    Reference:
        Raghu et al. 2019, "Transfusion: understanding transfer learning for medical imaging", 1902.07208.
    """

    def ablate(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Normal values with the tensor's mean and deviation."""
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return value.mean() + value.std(correction=0) * noise
