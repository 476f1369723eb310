"""`weight_fusion/wudi`: the matrix that interferes least with what the tasks' matrices do to their own inputs.

Dimensions in tensor names: K models, O rows, I columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.matrices import MatrixFusion
from transfuse.types import HyperparameterError


def interference(merged_OI: Tensor, deltas_KOI: Tensor) -> Tensor:
    """`sum_i ||(M - d_i) d_i^T||_F^2 / ||d_i||_F^2`, a scalar; tasks that are 0 do not count.

    Example:
        >>> interference(torch.tensor([[1.0]]), torch.tensor([[[2.0]], [[0.0]]]))
        tensor(1.)
    """
    terms = [
        ((merged_OI - delta_OI) @ delta_OI.T).square().sum() / delta_OI.square().sum()
        for delta_OI in deltas_KOI
        if bool(delta_OI.any())
    ]
    return torch.stack(terms).sum()


def least_interference(deltas_KOI: Tensor) -> Tensor:
    """The M of least norm that minimizes `interference`.

    `M = (sum_i d_i C_i / n_i) (sum_i C_i / n_i)^+`, `C_i = d_i^T d_i`, `n_i = ||d_i||_F^2`. It is computed as the least
    squares solution of `M D^T = L`, D and L the `d_i / sqrt(n_i)` and `d_i d_i^T / sqrt(n_i)` of all tasks: D has the
    square root of the condition number.

    Args:
        deltas_KOI: (K, O, I) task matrices, one of them not 0.

    Returns:
        (O, I).

    Example:
        >>> least_interference(torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]]))
        tensor([[2., 3.]])
    """
    moved = [delta_OI for delta_OI in deltas_KOI if bool(delta_OI.any())]
    stacked = torch.cat([delta_OI / delta_OI.norm() for delta_OI in moved])
    targets = torch.cat([delta_OI @ (delta_OI / delta_OI.norm()).T for delta_OI in moved], dim=1)
    cutoff = max(stacked.shape) * torch.finfo(stacked.dtype).eps
    # M = L (D^T)^+
    solution_OI: Tensor = targets @ torch.linalg.pinv(stacked.T, rtol=cutoff)
    return solution_OI


def descended_interference(deltas_KOI: Tensor, *, lr: float, steps: int) -> Tensor:
    """The M that Adam finds on `interference` from `sum_i d_i`, in its fixed number of steps.

    Args:
        deltas_KOI: (K, O, I) task matrices, one of them not 0.
        lr: Adam's learning rate.
        steps: how many.

    Returns:
        (O, I).

    Example:
        >>> descended_interference(torch.tensor([[[2.0]]]), lr=1e-5, steps=300)
        tensor([[2.]])
    """
    moved = [delta_OI for delta_OI in deltas_KOI if bool(delta_OI.any())]
    moments = [delta_OI.T @ delta_OI / delta_OI.square().sum() for delta_OI in moved]
    left_II = torch.stack(moments).sum(0)
    right_OI = torch.stack([delta_OI @ moment_II for delta_OI, moment_II in zip(moved, moments, strict=True)]).sum(0)
    merged_OI = deltas_KOI.sum(0)
    optimizer = torch.optim.Adam([merged_OI], lr=lr)
    for _ in range(steps):
        # d objective / d M = 2 (M sum_i C_i / n_i - sum_i d_i C_i / n_i)
        merged_OI.grad = 2 * (merged_OI @ left_II - right_OI)
        optimizer.step()
    return merged_OI


@dataclass(frozen=True, kw_only=True)
class WUDI(MatrixFusion):
    """`b + scale * M`, M minimizes `sum_i ||(M - d_i) d_i^T||_F^2 / ||d_i||_F^2`; `mean_i d_i` for non-matrices.

    Attributes:
        scale: >= 0; `search` takes the best of `grid` on validation data.
        solver: `adam` from the sum of the task vectors, as published; `exact` in closed form.
        lr: Adam's learning rate, > 0.
        steps: Adam's, >= 0.

    Example:
        >>> models = [{"w": torch.tensor([[2.0, 0.0]])}, {"w": torch.tensor([[0.0, 3.0]])}]
        >>> WUDI(solver="exact").merged(models, {"w": torch.zeros(1, 2)})
        {'w': tensor([[2., 3.]])}

    Reference:
        Cheng et al. 2025, "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task
        Vectors", 2503.08099, eq. 13.
    """

    solver: Literal["exact", "adam"] = "adam"
    lr: float = 1e-5
    steps: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver not in ("exact", "adam"):
            raise HyperparameterError(f"`solver` should be exact or adam. Found `solver = {self.solver}`.")
        if not 0 < self.lr < math.inf:
            raise HyperparameterError(f"`lr` should be a number > 0. Found `lr = {self.lr}`.")
        if not isinstance(self.steps, int) or self.steps < 0:
            raise HyperparameterError(f"`steps` should be a whole number >= 0. Found `steps = {self.steps}`.")

    def fuse_matrix(self, deltas_KOI: Tensor) -> Tensor:
        """The matrix of least interference, (O, I)."""
        if self.solver == "exact":
            return least_interference(deltas_KOI)
        return descended_interference(deltas_KOI, lr=self.lr, steps=self.steps)
