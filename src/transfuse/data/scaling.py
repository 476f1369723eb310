"""Standardization by statistics of the training split: z = (x - mean) / std."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transfuse.types import Split

_CHUNK = 4096  # examples at a time, so that float64 copies of large image sets stay small


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """An affine map of inputs, fitted on training data and applied to every split.

    Attributes:
        mean: float64, () for images or (F,) for columns.
        factor: 1 / std, float64, of the same shape; 0 where the training values are constant.
    """

    mean: Tensor
    factor: Tensor

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs (N, ...) of any number type to float32 (x - mean) * factor; float64 is kept until the end."""
        values = inputs if inputs.dtype == torch.float64 else inputs.float()
        return ((values - self.mean.to(values)) * self.factor.to(values)).float()

    def apply_to(self, split: Split) -> Split:
        """The split with scaled inputs."""
        return replace(split, inputs=self.apply(split.inputs))


def pixel_scaling(inputs: Tensor) -> Scaling:
    """One mean and one (population) standard deviation over all pixels of all images (N, ...)."""
    total = inputs.numel()
    mean = sum((chunk.double().sum() for chunk in torch.split(inputs, _CHUNK)), torch.zeros(())) / total
    square = sum(((chunk.double() - mean).square().sum() for chunk in torch.split(inputs, _CHUNK)), torch.zeros(()))
    constant = inputs.amin() == inputs.amax()
    return Scaling(mean=mean, factor=_factor((square / total).sqrt(), constant))


def column_scaling(inputs_NF: Tensor) -> Scaling:
    """Mean and (population) standard deviation of each column of (N, F)."""
    values_NF = inputs_NF.double()
    constant_F = values_NF.amin(0) == values_NF.amax(0)
    mean_F = values_NF.mean(0)
    std_F = (values_NF - mean_F).square().mean(0).sqrt()
    return Scaling(mean=mean_F, factor=_factor(std_F, constant_F))


def _factor(std: Tensor, constant: Tensor) -> Tensor:
    return torch.where(constant, 0.0, 1.0 / std)
