"""`weight_fusion/nuslerp`: slerp of two models by weights, of task vectors where there is a base.

Dimensions in tensor names: V vectors of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.shares import positive_shares
from transfuse.strategy.weight_fusion.slerp import slerp_coefficients
from transfuse.strategy.weight_fusion.vectors import Coefficients, Over, combine, cosines, grams
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class NuSlerp(Weighted):
    """Slerp with `t = w_2 / (w_1 + w_2)`, of the task vectors `d_i = x_i - b` where there is a base.

    Unlike `Slerp` it never takes the straight line for vectors that are nearly parallel; only for those that are
    collinear to rounding. The angle to a vector of zeros counts as a right one.

    Attributes:
        weights: see `Weighted`, >= 0; None: 1 each.
        over: what is one vector: the flattened `tensor`, each `row` (the weights of one output: all elements of one
            index of the first dimension), or each `column`. Biases and other tensors of one dimension are one vector.

    Example:
        >>> models = [{"w": torch.tensor([[1.0, 0.0], [1.0, 1.0]])}, {"w": torch.tensor([[0.0, 1.0], [3.0, 3.0]])}]
        >>> NuSlerp(over="row").merged(models)
        {'w': tensor([[0.7071, 0.7071],
                [2.0000, 2.0000]])}

    Reference:
        Goddard et al. 2024 (2403.13257), "nuslerp". What mergekit calls row-wise are the columns here.
    """

    size: ClassVar[int] = WIDE
    base: ClassVar[Need] = "optional"
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    over: Over = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in get_args(Over):
            raise HyperparameterError(f"`over` should be tensor, row or column. Found `over = {self.over}`.")

    def survey(self, blocks: Blocks) -> Coefficients:
        """(V, 2) coefficients."""
        gram_VKK = grams(blocks, self.over)
        _, t = positive_shares(self.model_weights(2))
        return Coefficients.of(slerp_coefficients(cosines(gram_VKK)[:, 0, 1], t), blocks)

    def fuse_block(self, block: Block, survey: Coefficients) -> Tensor:
        """`c_1 x_1 + c_2 x_2`, or `b + c_1 d_1 + c_2 d_2`, (B,)."""
        return combine(block, survey, self.over)
