"""`weight_fusion/regmean`: linear layers whose outputs are nearest to those of all models on their own inputs.

Dimensions in tensor names: K models, G groups of a convolution, O outputs, I inputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from transfuse.state_dict import check_finite
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.grams import input_grams
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.measuring import Sample, check_examples, measure_members
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.positive import PositivelyWeighted
from transfuse.types import HyperparameterError, StateDictMismatch, TransfuseError


class SingularGramError(TransfuseError):
    """The Gram matrices of a layer do not determine its weights."""


def regression_mean(
    weights_KOI: Sequence[Tensor], grams_KII: Sequence[Tensor], *, reduce: float = 1.0, ridge: float = 0.0
) -> Tensor:
    """The W that minimizes `sum_i tr((W - W_i) H_i (W - W_i)^T)`: `W = sum_i W_i H_i (sum_i H_i)^-1`.

    H_i is the Gram matrix `G_i` with its off-diagonal elements times `reduce`, plus `ridge` times the models' mean
    diagonal element on the diagonal. The ridge pulls to the mean of the W_i: inputs that are always 0 have that mean,
    and equal models give themselves.

    Args:
        weights_KOI: K matrices (O, I).
        grams_KII: K symmetric positive semi-definite matrices (I, I), with the models' weights as factors.
        reduce: in [0, 1].
        ridge: >= 0.

    Returns:
        (O, I) float64.

    Raises:
        SingularGramError: the sum of the H_i cannot be inverted; the message names its condition number.

    Example:
        >>> models = [torch.tensor([[1.0]]), torch.tensor([[4.0]])]
        >>> regression_mean(models, [torch.tensor([[2.0]]), torch.tensor([[1.0]])])
        tensor([[2.0000]], dtype=torch.float64)

    Reference:
        Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models", 2212.09849, eq. 2, sec. 4.2.
        Differs from the paper: the ridge.
    """
    grams_KII = [gram_II.double() for gram_II in grams_KII]
    total_II = sum(grams_KII, torch.zeros_like(grams_KII[0]))
    extra = ridge * float(total_II.diagonal().mean()) / len(grams_KII)
    if ridge > 0 and extra == 0:  # nothing ever enters the layer: the limit is the mean
        extra = 1.0
    eye_II = torch.eye(len(total_II), dtype=torch.float64, device=total_II.device)
    factor_II = reduce + (1 - reduce) * eye_II
    reduced_KII = [gram_II * factor_II + extra * eye_II for gram_II in grams_KII]
    left_II = sum(reduced_KII, torch.zeros_like(total_II))
    right_IO = sum(
        (gram_II @ weight_OI.double().T for gram_II, weight_OI in zip(reduced_KII, weights_KOI, strict=True)),
        torch.zeros(len(total_II), len(weights_KOI[0]), dtype=torch.float64, device=total_II.device),
    )
    return torch.cholesky_solve(right_IO, _cholesky(left_II)).transpose(0, 1)


def _cholesky(matrix_II: Tensor) -> Tensor:
    found = torch.linalg.cholesky_ex(matrix_II)
    lower_II: Tensor = found.L
    pivots_I = lower_II.diagonal().square()
    rounding = len(matrix_II) * torch.finfo(torch.float64).eps
    if int(found.info) == 0 and float(pivots_I.min()) > rounding * float(pivots_I.max()):
        return lower_II
    values_I = torch.linalg.eigvalsh(matrix_II)
    smallest, largest = float(values_I.min()), float(values_I.max())
    condition = largest / smallest if smallest > 0 else math.inf
    raise SingularGramError(f"has Gram matrices that cannot be inverted (condition number {condition:.3g})")


@dataclass(frozen=True, kw_only=True)
class RegMean(PositivelyWeighted):
    """`W = (sum_i w_i G_i)^-1 sum_i w_i G_i W_i` for linear layers and convolutions, `sum_i w_i x_i / sum_i w_i` else.

    `G_i = X_i^T X_i / N_i` of the inputs X_i of the layer in model i; convolutions have one a group.

    Attributes:
        weights: see `Weighted`; >= 0. None: 1 each.
        examples: training examples that G is measured on, at least 1.
        reduce: factor of G's off-diagonal elements, in [0, 1]; 0.9 is the paper's.
        ridge: >= 0, times G's mean diagonal element, on the diagonal; see `regression_mean`.

    Example:
        >>> models = [{"w": torch.tensor([[1.0]])}, {"w": torch.tensor([[4.0]])}]
        >>> RegMean().merged(models, statistics=[{"w": torch.tensor([[2.0]])}, {"w": torch.tensor([[1.0]])}])
        {'w': tensor([[2.0000]])}

    Reference:
        Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models", 2212.09849, eq. 2.
    """

    statistics: ClassVar[Need] = "required"
    whole: ClassVar[bool] = True

    examples: int = 1024
    reduce: float = 0.9
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_examples(self.examples)
        if not 0 <= self.reduce <= 1:
            raise HyperparameterError(f"`reduce` should be in [0, 1]. Found `reduce = {self.reduce}`.")
        if not 0 <= self.ridge < math.inf:
            raise HyperparameterError(f"`ridge` should be a number >= 0. Found `ridge = {self.ridge}`.")

    def measure(self, context: Context, parts: Parts) -> Measured:
        """The Gram matrices of every member's layers on examples of its own data."""

        def of(network: nn.Module, sample: Sample) -> Mapping[str, Tensor]:
            return input_grams(network, sample.split.inputs)

        return measure_members(context, parts, {"method": "regmean"}, self.examples, of)

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The fused tensor, flat."""
        weights_K = self.model_weights(block.num_models)
        if block.statistics is None:
            return weighted_sum(block.rows_K, weights_K, math.fsum(weights_K), out=block.out_B)
        grams_KGII = self._checked(block, weights_K)
        num_groups, num_inputs = grams_KGII[0].shape[:2]
        values_KGOI = block.values_KB.reshape(len(weights_K), num_groups, -1, num_inputs)
        try:
            fused_GOI = [
                regression_mean(
                    list(values_KGOI[:, group]),
                    [gram_GII[group] for gram_GII in grams_KGII],
                    reduce=self.reduce,
                    ridge=self.ridge,
                )
                for group in range(num_groups)
            ]
        except SingularGramError as error:
            raise SingularGramError(f"`{block.key}` {error}. Did you mean ridge=1e-6, or more examples?") from None
        return torch.stack(fused_GOI).reshape(-1).to(block.dtype)

    def _checked(self, block: Block, weights_K: Sequence[float]) -> list[Tensor]:
        """K Gram matrices (G, I, I) that fit the tensor, times the models' weights."""
        assert block.statistics is not None, "asked for only then"
        names = [f"`statistics` of model {index}" for index in range(len(weights_K))]
        check_finite(block.statistics, block.key, names)
        rows = block.shape[0] if block.shape else 1
        num_inputs = math.prod(block.shape[1:])
        grams = []
        for name, found, weight in zip(names, block.statistics, weights_K, strict=True):
            gram_GII = found.unsqueeze(0) if found.dim() == 2 else found
            if gram_GII.dim() != 3 or gram_GII.shape[1:] != (num_inputs, num_inputs) or rows % len(gram_GII):
                raise StateDictMismatch(
                    f"`{block.key}` is {block.shape} and needs Gram matrices ({num_inputs}, {num_inputs}), one or one "
                    f"a group. Found {tuple(found.shape)} in {name}."
                )
            grams.append(gram_GII.double() * weight)
        if len({len(gram_GII) for gram_GII in grams}) > 1:
            raise StateDictMismatch(f"`{block.key}` has different numbers of groups in `statistics` of the models.")
        return grams
