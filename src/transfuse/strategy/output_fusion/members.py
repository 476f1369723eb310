"""The members inside of a fused network, and how they are run: one after the other, or stacked as one network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transfuse.strategy.output_fusion.stacked import Stacked, alike, can_stack, is_convolutional, with_mode

Inference = Literal["auto", "loop", "stacked"]

# Above, the loop is the faster one on a CPU: what stacked layers hand on no longer fits the caches, and convolutions in
# groups are slow.
_LARGEST_LINEAR, _LARGEST_CONVOLUTIONAL = 2**15, 2**11


class Members(nn.ModuleList):
    """K networks that see the same inputs; the state dict is theirs alone.

    Stacked weights are derived: made when first needed, and anew after the members' weights changed. They serve members
    in evaluation mode, without gradients; otherwise, and for architectures that `alike` does not know, the loop does.

    Attributes:
        inference: `loop`; `stacked` wherever possible; `auto`: stacked for batches of at most 32768 values, with
            convolutions of at most 2048 (two images of 28 x 28, 32 of 8 x 8), else the loop.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__(networks)
        self.inference: Inference = "auto"
        self._networks = alike(networks)
        self._modes = [] if self._networks is None else with_mode(self._networks)
        self._convolutional = self._networks is not None and is_convolutional(self._networks[0])
        self._stacked: Stacked | None = None

    def outputs(self, inputs: Tensor, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Inputs (N, ...) to outputs (K, N, C) of these tasks."""
        stacked = self._stacked_for(inputs)
        if stacked is not None:
            outputs_KNC = stacked(inputs)
            return {task: outputs_KNC[task] for task in tasks}
        outputs = [network(inputs) for network in self]
        return {task: torch.stack([output[task] for output in outputs]) for task in tasks}

    def _stacked_for(self, inputs: Tensor) -> Stacked | None:
        """The members as one network, where that is possible and wanted."""
        networks = self._networks
        if self.inference == "loop" or networks is None or len(networks) == 1 or torch.is_grad_enabled():
            return None
        if self.inference == "auto" and self._is_large(inputs):
            return None
        if self.training or any(module.training for module in self._modes) or list(self) != networks:
            return None
        if self._stacked is None or not self._stacked.current:
            self._stacked = Stacked(networks) if can_stack(networks) else None
        return self._stacked

    def _is_large(self, inputs: Tensor) -> bool:
        return inputs.numel() > (_LARGEST_CONVOLUTIONAL if self._convolutional else _LARGEST_LINEAR)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make their own stacked weights."""
        return {**self.__dict__, "_stacked": None}
