"""`weight_fusion/model_stock`: between the base and the mean of the models, by how well their task vectors agree.

Dimensions in tensor names: K models, P pairs of models, V vectors of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.vectors import Coefficients, combine, cosines, grams
from transfuse.types import HyperparameterError

_SMALLEST = 1e-9  # a smaller denominator is rounding


def stock_ratio(cosine_V: Tensor, num_models: int, *, clamp: bool = True) -> Tensor:
    """`t = K c / (1 + (K - 1) c)`: how far to go from the base to the mean of the models.

    Args:
        cosine_V: mean cosines c of pairs of task vectors.
        num_models: K >= 2.
        clamp: to [0, 1].

    Returns:
        (V,); 0 where the denominator is not positive.

    Example:
        >>> stock_ratio(torch.tensor([0.0, 0.5, 1.0, -1.0]), 2)
        tensor([0.0000, 0.6667, 1.0000, 0.0000])
    """
    denominator_V = 1 + (num_models - 1) * cosine_V
    ratio_V = (num_models * cosine_V / denominator_V).where(denominator_V > _SMALLEST, 0.0)
    return ratio_V.clamp(0, 1) if clamp else ratio_V


@dataclass(frozen=True, kw_only=True)
class ModelStock(TensorFusion):
    """`x = t mean(x_i) + (1 - t) b`, `t = K c / (1 + (K - 1) c)`, c the mean cosine of pairs of `d_i = x_i - b`.

    The cosine with a task vector of zeros counts as 0.

    Attributes:
        clamp: keep t in [0, 1]: a negative c would leave the base backwards, without bound as 1 + (K - 1) c nears 0.
        granularity: one t for each `tensor`, or for each `row` (the weights of one output).
        average: c is the mean `cosine`, or the cosine of the mean `angle`.

    Example:
        >>> models = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.6, 0.8])}]
        >>> ModelStock().merged(models, base={"w": torch.zeros(2)})
        {'w': tensor([0.6000, 0.3000])}

    Reference:
        Jang et al. 2024, "Model Stock: all we need is just a few fine-tuned models", 2403.19522. Differs from the
        paper: there one angle in (0, 90) degrees is assumed for all pairs; here cosines are averaged and t is bounded.
    """

    size: ClassVar[int] = WIDE
    base: ClassVar[Need] = "required"
    least: ClassVar[int] = 2

    clamp: bool = True
    granularity: Literal["tensor", "row"] = "tensor"
    average: Literal["cosine", "angle"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, found, known in (
            ("granularity", self.granularity, ("tensor", "row")),
            ("average", self.average, ("cosine", "angle")),
        ):
            if found not in known:
                raise HyperparameterError(f"`{name}` should be {' or '.join(known)}. Found `{name} = {found}`.")

    def survey(self, blocks: Blocks) -> Coefficients:
        """(V, 1) ratios t."""
        gram_VKK = grams(blocks, self.granularity, exact=self.average == "angle")
        num_models = gram_VKK.shape[-1]
        first, second = torch.triu_indices(num_models, num_models, offset=1)
        cosine_VP = cosines(gram_VKK)[:, first, second]
        cosine_V = cosine_VP.mean(-1) if self.average == "cosine" else cosine_VP.acos().mean(-1).cos()
        return Coefficients.of(stock_ratio(cosine_V, num_models, clamp=self.clamp)[:, None], blocks)

    def fuse_block(self, block: Block, survey: Coefficients) -> Tensor:
        """`b + t (mean(x_i) - b)`, (B,)."""
        rows_K = [values_B.to(survey.dtype) for values_B in block.rows_K]
        mean_B = weighted_sum(rows_K, (1.0,) * len(rows_K), len(rows_K))
        mean = replace(block, rows_K=(mean_B,), stacked_KB=None, out_B=None)
        return combine(mean, survey, self.granularity).to(block.dtype)
