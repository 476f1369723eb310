"""`weight_fusion/magmax`: each element takes the task vector that moved it most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.trimming import task_vectors


def largest_magnitude(deltas_KB: Tensor) -> Tensor:
    """Of each element's K values the one of largest magnitude, (B,); of equal magnitudes the later model's.

    Example:
        >>> largest_magnitude(torch.tensor([[1.0, 2.0], [-3.0, -2.0]]))
        tensor([-3., -2.])
    """
    largest_B = deltas_KB[0].clone()
    for delta_B in deltas_KB[1:]:
        torch.where(delta_B.abs() >= largest_B.abs(), delta_B, largest_B, out=largest_B)
    return largest_B


@dataclass(frozen=True, kw_only=True)
class MagMax(Scaled):
    """`x = b + scale * d_j`, element by element the task vector of largest magnitude; of equal ones the later model's.

    Attributes:
        scale: see `Scaled`; 0.5 in the paper.

    Example:
        >>> start, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-3.0, 1.0])}]
        >>> MagMax().merged(models, start)
        {'w': tensor([-1.5000,  1.0000])}

    Reference:
        Marczak et al. 2024, "MagMax: leveraging model merging for seamless continual learning", 2407.06322.
    """

    scale: float | Literal["search"] = 0.5

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The base plus the scaled largest change, (B,)."""
        assert block.base_B is not None and not isinstance(self.scale, str)
        return largest_magnitude(task_vectors(block)).mul_(self.scale).add_(block.base_B)
