"""`weight_fusion/slerp`: the point on the great circle between two models.

Dimensions in tensor names: K = 2 models, V vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import TensorMethod
from transfuse.strategy.weight_fusion.per_layer import PerLayer, PerTensor, canonical, numbers, resolve
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.vectors import Coefficients, combine, cosines, grams
from transfuse.types import HyperparameterError

_COLLINEAR = 1e-6  # sines below it are rounding: there is no circle, or one through every direction


def slerp_coefficients(cosine_V: Tensor, t: float, lerp_above: float = 1.0) -> Tensor:
    """`sin((1 - t) theta) / sin(theta)` and `sin(t theta) / sin(theta)`; `1 - t` and `t` for collinear vectors.

    Args:
        cosine_V: cosines of the angles theta, in [-1, 1].
        t: 0 for the first vector, 1 for the second.
        lerp_above: |cosines| above it count as collinear.

    Returns:
        (V, 2) float64.

    Example:
        >>> slerp_coefficients(torch.tensor([0.0, 1.0]), 0.5)
        tensor([[0.7071, 0.7071],
                [0.5000, 0.5000]], dtype=torch.float64)
    """
    theta_V = cosine_V.double().acos()
    collinear_V = (cosine_V.abs() > lerp_above) | (theta_V.sin() < _COLLINEAR)
    sine_V = theta_V.sin().where(~collinear_V, 1.0)
    first_V = (((1 - t) * theta_V).sin() / sine_V).where(~collinear_V, 1 - t)
    second_V = ((t * theta_V).sin() / sine_V).where(~collinear_V, t)
    return torch.stack([first_V, second_V], dim=-1)


@dataclass(frozen=True, kw_only=True)
class Slerp(TensorFusion):
    """`x = sin((1 - t) theta) / sin(theta) x_1 + sin(t theta) / sin(theta) x_2`, theta the angle of x_1 and x_2.

    Per tensor, of weights as they are: their norms are not made equal. The angle to a tensor of zeros counts as a right
    one.

    Attributes:
        t: in [0, 1], from the first model to the second; per layer: a number, anchors over depth (`[0, 0.5, 1]`), or
            filters (`[{filter: self_attn, value: [0, 1]}, {value: 0.5}]`).
        extrapolate: take any t.
        lerp_above: in [0, 1]: with a larger |cos(theta)| the result is `(1 - t) x_1 + t x_2`.

    Example:
        >>> Slerp(t=0.5).merged([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}])
        {'w': tensor([0.7071, 0.7071])}

    Reference:
        Shoemake 1985, "Animating rotation with quaternion curves"; Goddard et al. 2024 (2403.13257), "slerp".
    """

    size: ClassVar[int] = WIDE
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    t: PerLayer = 0.5
    extrapolate: bool = False
    lerp_above: float = 0.9995

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "t", canonical(self.t, "t"))
        for t in numbers(self.t):
            if not (self.extrapolate or 0 <= t <= 1):
                raise HyperparameterError(
                    f"`t` should be in [0, 1]. Found `t = {t}`. Did you mean it, with extrapolate=true?"
                )
        if not 0 <= self.lerp_above <= 1:
            raise HyperparameterError(f"`lerp_above` should be in [0, 1]. Found `lerp_above = {self.lerp_above}`.")

    def bind(self, tensors: Sequence[Blocks]) -> TensorMethod:
        """A method for each tensor, where t differs between them."""
        if isinstance(self.t, float):
            return self
        steps = resolve(self.t, [blocks.key for blocks in tensors], "t")
        methods = {t: replace(self, t=t) for t in sorted(set(steps.values()))}
        return PerTensor(methods={key: methods[t] for key, t in steps.items()})

    def survey(self, blocks: Blocks) -> Coefficients:
        """(1, 2) coefficients."""
        assert isinstance(self.t, float), "bound before tensors are surveyed"
        return Coefficients.of(slerp_coefficients(cosines(grams(blocks))[:, 0, 1], self.t, self.lerp_above), blocks)

    def fuse_block(self, block: Block, survey: Coefficients) -> Tensor:
        """`c_1 x_1 + c_2 x_2`, (B,)."""
        return combine(block, survey)
