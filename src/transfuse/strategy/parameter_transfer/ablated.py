"""Controls: what is left of a source's weights when their arrangement is taken away."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune


@dataclass(frozen=True, kw_only=True)
class Ablated(FullFinetune):
    """Full fine-tuning from tensors that keep part of what the source's hold.

    Floating tensors with more than one element are changed, BatchNorm's statistics too; variances stay positive.
    """

    @abstractmethod
    def ablate(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """What is kept of one tensor, in its shape."""

    def carried_state(self, state: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
        """The source's tensors without their arrangement."""
        changed = {}
        for key, value in state.items():
            if value.is_floating_point() and value.numel() > 1:
                value = self.ablate(value, generator)
            changed[key] = value.abs() if key.endswith("running_var") else value
        return changed
