"""`weight_fusion/fisher`: an average that weighs every element by how much the model's outputs depend on it.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from transfuse.leaves import LEAF, leaves, pairwise_sum
from transfuse.state_dict import check_finite
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.fisher_information import Labels, fisher_diagonal
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.measuring import Sample, check_examples, measure_members
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.positive import PositivelyWeighted
from transfuse.types import HyperparameterError, StateDictError

_LABELS = ("expected", "sampled", "empirical")


@dataclass(frozen=True, kw_only=True)
class FisherMerging(PositivelyWeighted):
    """`x = sum_i w_i F_i x_i / sum_i w_i F_i`, element by element; F_i is the diagonal of model i's Fisher information.

    What has no Fisher information (buffers) is averaged with the weights w_i alone.

    Attributes:
        weights: see `Weighted`; >= 0. None: 1 each.
        examples: training examples that F is measured on, at least 1.
        labels: `expected` under the model's own predictions (exact), `sampled` from them, or `empirical`: the data's.
        floor: > 0; F is raised to it where it is smaller.
        normalize: `l2` divides each model's floored F by the norm of its F over all fused tensors; `none` does not.
        favor: `first` raises the first model's F alone to the floor, so that its values stay where no model knows
            better; `none` treats all alike.

    Example:
        >>> models = [{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([3.0, 3.0])}]
        >>> information = [{"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([1.0, 1.0])}]
        >>> FisherMerging().merged(models, statistics=information)
        {'w': tensor([2.0000, 1.5000])}

    Reference:
        Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging", 2111.09832, eq. 2.
    """

    statistics: ClassVar[Need] = "required"

    examples: int = 512
    labels: Labels = "expected"
    floor: float = 1e-6
    normalize: Literal["none", "l2"] = "none"
    favor: Literal["none", "first"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_examples(self.examples)
        for name, value, options in (
            ("labels", self.labels, _LABELS),
            ("normalize", self.normalize, ("none", "l2")),
            ("favor", self.favor, ("none", "first")),
        ):
            if value not in options:
                raise HyperparameterError(f"`{name}` should be one of {', '.join(options)}. Found `{name} = {value}`.")
        if not 0 < self.floor < math.inf:
            raise HyperparameterError(f"`floor` should be a number > 0. Found `floor = {self.floor}`.")

    def model_weights(self, num_models: int) -> tuple[float, ...]:
        """K numbers >= 0; the first is positive where it alone has a floor."""
        weights = super().model_weights(num_models)
        if self.favor == "first" and weights[0] == 0:
            raise HyperparameterError(
                f"`weights` should be positive for the first model with favor=first. Found `weights = {list(weights)}`."
            )
        return weights

    def measure(self, context: Context, parts: Parts) -> Measured:
        """The Fisher information of every member on examples of its own tasks."""

        def of(network: nn.Module, sample: Sample) -> Mapping[str, Tensor]:
            generator = context.generator("weight_fusion/fisher/labels")
            return fisher_diagonal(network, sample.tasks, sample.split, labels=self.labels, generator=generator)

        return measure_members(context, parts, {"method": "fisher", "labels": self.labels}, self.examples, of)

    def bind(self, tensors: Sequence[Blocks]) -> FisherMerging | _Normalized:
        """Checks the statistics; with `normalize=l2` their norms over all tensors are taken."""
        squares_TK = [_checked_squares(blocks) for blocks in tensors if blocks.statistics is not None]
        if self.normalize == "none" or not squares_TK:
            return self
        norms_K = pairwise_sum(squares_TK).sqrt().tolist()
        return _Normalized(method=self, norms=tuple(norm or 1.0 for norm in norms_K))

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The weighted mean of the models' values, (B,)."""
        weights_K = self.model_weights(block.num_models)
        if block.statistics is None:
            return weighted_sum(block.rows_K, weights_K, math.fsum(weights_K), out=block.out_B)
        total_B = divisor_B = torch.zeros_like(block.rows_K[0])
        for index, (values_B, fisher_B) in enumerate(zip(block.rows_K, block.statistics, strict=True)):
            floored = self.favor == "none" or index == 0
            # w_i F_i
            share_B = (fisher_B.clamp_min(self.floor) if floored else fisher_B) * weights_K[index]
            total_B = total_B + share_B * values_B
            divisor_B = divisor_B + share_B
        return total_B / divisor_B


@dataclass(frozen=True, kw_only=True)
class _Normalized:
    """The method with weights that are divided by the norms of the models' statistics."""

    method: FisherMerging
    norms: tuple[float, ...]
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> _Normalized:
        return self

    def survey(self, blocks: object) -> None:
        """Nothing to measure."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        if block.statistics is None:
            return self.method.fuse_block(block, survey)
        weights_K = self.method.model_weights(len(block.values_KB))
        # w_i / ||F_i||
        shares = tuple(weight / norm for weight, norm in zip(weights_K, self.norms, strict=True))
        return replace(self.method, weights=shares).fuse_block(block, survey)


def _checked_squares(blocks: Blocks) -> Tensor:
    """(K,) float64 sums of squares of one tensor's statistics, which are finite and not negative."""
    assert blocks.statistics is not None, "asked for only then"
    check_finite(blocks.statistics, blocks.key, [f"`statistics` of model {i}" for i in range(len(blocks.statistics))])
    sums = []
    for index, value in enumerate(blocks.statistics):
        flat = value.reshape(-1)
        if flat.numel() and flat.min() < 0:
            raise StateDictError(
                f"`{blocks.key}` in `statistics` of model {index} should be >= 0. Found {float(flat.min()):.3g}."
            )
        parts = [flat[piece].double().square().sum() for piece in leaves(flat.numel())]
        sums.append(pairwise_sum([torch.zeros((), dtype=torch.float64), *parts]))
    return torch.stack(sums)
