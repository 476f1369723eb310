"""`parameter_transfer/shuffled_weights`: a control that tells the scale of weights from their arrangement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.parameter_transfer.ablated import Ablated


@dataclass(frozen=True, kw_only=True)
class ShuffledWeights(Ablated):
    """Each tensor keeps the source's entries, in random order; then full fine-tuning.

    Where it does as well as the source's own weights, what helped was their scale.

    Reference:
        Raghu et al. 2019, "Transfusion: understanding transfer learning for medical imaging", 1902.07208.
    """

    def ablate(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """The entries in random order."""
        order = torch.randperm(value.numel(), generator=generator)
        return value.flatten()[order].reshape(value.shape)
