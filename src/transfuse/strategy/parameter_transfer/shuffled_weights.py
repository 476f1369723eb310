"""`parameter_transfer/shuffled_weights`: a control that tells the scale of weights from their arrangement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.parameter_transfer.ablated import each_tensor, shuffled
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune


@dataclass(frozen=True, kw_only=True)
class ShuffledWeights(FullFinetune):
    """Each tensor keeps the source's entries, in random order; then full fine-tuning.

    Where it does as well as the source's own weights, what helped was their scale. BatchNorm statistics are treated as
    weights are; variances stay positive.

    Reference:
        Raghu et al. 2019, "Transfusion: understanding transfer learning for medical imaging", 1902.07208.
    """

    def carried_state(self, state: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
        """The source's tensors without their arrangement."""
        changed = each_tensor(state, lambda value: shuffled(value, generator))
        return {key: value.abs() if key.endswith("running_var") else value for key, value in changed.items()}
