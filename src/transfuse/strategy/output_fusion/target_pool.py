"""The linear pool of values with weights of each target's own.

Dimensions in tensor names: M members, N examples, C targets.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from transfuse.strategy.output_fusion.combiner import Combiner


class TargetPool(Combiner):
    """`y_c = sum_m W_mc f_mc + b_c`. Has `weights` (M, C) and `intercept` (C,), both float64."""

    intercept: Tensor

    def __init__(
        self, weights_MC: Tensor, *, intercept_C: Tensor | None = None, diagnostics: Mapping[str, float] | None = None
    ) -> None:
        super().__init__("regression", weights=weights_MC, diagnostics=diagnostics)
        self.register_buffer("intercept", torch.zeros_like(weights_MC[0]) if intercept_C is None else intercept_C)

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pooled values (N, C)."""
        assert self.weights is not None
        weighted_MNC = self.weights.to(logits_MNC.dtype)[:, None] * logits_MNC
        return weighted_MNC.sum(dim=0) + self.intercept.to(logits_MNC.dtype)
