"""`weight_fusion/consensus_ta`: the summed task vector, where enough models hold the element for their own.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.trimming import task_vectors
from transfuse.types import Development, HyperparameterError

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)


def tall_masks(deltas_KB: Tensor, total_B: Tensor, lam_K: Sequence[float]) -> Tensor:
    """m_i = [|d_i| >= lam_i |D - d_i|]: which elements of the sum D are a model's own.

    Args:
        deltas_KB: (K, B) task vectors d_i.
        total_B: (B,) their sum D.
        lam_K: one threshold a model; the larger, the fewer elements.

    Returns:
        (K, B) booleans.

    Example:
        >>> deltas_KB = torch.tensor([[4.0, 1.0], [1.0, 1.0]])
        >>> tall_masks(deltas_KB, deltas_KB.sum(0), (0.5, 0.5))
        tensor([[ True,  True],
                [False,  True]])

    Reference:
        Wang et al. 2024, 2405.07813, equation 5.
    """
    masks_KB = [
        delta_B.abs() >= (total_B - delta_B).abs_().mul_(lam) for delta_B, lam in zip(deltas_KB, lam_K, strict=True)
    ]
    return torch.stack(masks_KB)


@dataclass(frozen=True, kw_only=True)
class ConsensusTA(Scaled):
    """`x = b + scale * D * [sum_i m_i >= k]`, `D = sum_i d_i`, `m_i = [|d_i| >= lam_i |D - d_i|]`, `d_i = x_i - b`.

    With k = 2, elements that no model or a single one cares for keep the base's values.

    Attributes:
        lam: threshold >= 0 of the masks, one for all models or one a model; `search` takes the best of 0.2, 0.3, ...,
            0.6 on validation data, one look each (with `scale=search`: all pairs).
        k: how many models must hold an element for their own, from 1 to their number.
        scale: see `Scaled`.

    Differs from the paper: a search takes one `lam` for all models by the fused network's score, where the paper takes
    one a task by the score of the task's own masked network.

    Example:
        >>> base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([4.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])}]
        >>> ConsensusTA(lam=0.5, scale=1.0).merged(models, base)
        {'w': tensor([0., 2.])}

    Reference:
        Wang et al. 2024, "Localizing task information for improved model merging and compression", 2405.07813.
    """

    least: ClassVar[int] = 2

    lam: float | tuple[float, ...] | Literal["search"] = 0.4
    k: int = 2
    scale: float | Literal["search"] = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.lam, (int, float, str)):
            object.__setattr__(self, "lam", tuple(map(float, self.lam)))
        values = self.lam if isinstance(self.lam, tuple) else (self.lam,)
        if self.lam != "search" and not all(not isinstance(v, str) and 0 <= v < math.inf for v in values):
            raise HyperparameterError(
                f"`lam` should be a number >= 0, one a model, or search. Found `lam = {self.lam}`."
            )
        if self.k < 1:
            raise HyperparameterError(f"`k` should be at least 1. Found `k = {self.k}`.")

    @property
    def searches(self) -> Mapping[str, Sequence[float]]:
        """The thresholds that are tried, where they are searched."""
        return {**super().searches, "lam": LAMBDAS} if self.lam == "search" else super().searches

    def check(self, development: Development, base_models: Description) -> None:
        """`k` and `lam` must fit the number of models."""
        super().check(development, base_models)
        self._check_models(len(base_models))

    def bind(self, tensors: Sequence[Blocks]) -> ConsensusTA:
        """Itself; `k` and `lam` must fit the number of models."""
        for blocks in tensors[:1]:
            self._check_models(len(blocks.values_K))
        return self

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """Base plus the scaled sum where enough models agree, (B,)."""
        assert not isinstance(self.scale, str) and not isinstance(self.lam, str), "a search replaces them by numbers"
        assert block.base_B is not None, "the base is required"
        deltas_KB = task_vectors(block)
        num_models = len(deltas_KB)
        # D = sum_i d_i
        total_B = weighted_sum(deltas_KB, (1.0,) * num_models)
        lam_K = self.lam if isinstance(self.lam, tuple) else (self.lam,) * num_models
        agreed_B = tall_masks(deltas_KB, total_B, lam_K).sum(0) >= self.k
        # b + scale D [sum_i m_i >= k]
        return total_B.mul_(self.scale).mul_(agreed_B).add_(block.base_B)

    def _check_models(self, num_models: int) -> None:
        if self.k > num_models:
            raise HyperparameterError(
                f"`k` should be at most {num_models}, the number of models. Found `k = {self.k}`."
            )
        if isinstance(self.lam, tuple) and len(self.lam) != num_models:
            raise HyperparameterError(f"`lam` should have {num_models} entries (one a model). Found {len(self.lam)}.")
