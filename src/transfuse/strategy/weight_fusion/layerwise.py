"""Weighted sums with coefficients that differ from tensor to tensor: where learned coefficients end.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.leaves import LEAF
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.task_arithmetic import added


@dataclass(frozen=True, kw_only=True)
class LayerwiseSum:
    """`sum_i a_i x_i`, with a base `b + sum_i a_i (x_i - b)`, as a per-tensor method.

    Attributes:
        coefficients: key -> K coefficients.
        start_K: of all other tensors.
    """

    coefficients: Mapping[str, tuple[float, ...]]
    start_K: tuple[float, ...]
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> LayerwiseSum:
        """Needs to know nothing."""
        return self

    def survey(self, blocks: Blocks) -> None:
        """Nothing to measure."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The tensor's weighted sum, (B,)."""
        coefficients_K = self.coefficients.get(block.key, self.start_K)
        if block.base_B is None:
            return weighted_sum(block.rows_K, coefficients_K, out=block.out_B)
        return added(block.rows_K, block.base_B, coefficients_K)
