"""`weight_fusion/uniform_soup`: the plain average of all models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion


@dataclass(frozen=True, kw_only=True)
class UniformSoup(TensorFusion):
    """x = (1/K) sum_i x_i.

    Works where the models lie in one basin of the loss, such as fine-tunes from one start.

    Example:
        >>> UniformSoup().merged([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])
        {'w': tensor([2.])}

    Reference:
        Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time", 2203.05482.
    """

    size: ClassVar[int] = WIDE

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The mean over the models, (B,)."""
        num_models = block.num_models
        # x = sum_i x_i / K
        return weighted_sum(block.rows_K, (1.0,) * num_models, num_models, out=block.out_B)

    def coefficients(self, num_models: int) -> tuple[float, ...]:
        """1/K each."""
        return (1.0 / num_models,) * num_models
