"""Low-rank updates of weights as parametrizations: what LoRA and DoRA train.

Dimensions in tensor names: R rank, O outputs, I inputs of a weight flattened to a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from transfuse.training.plan import Data, Finish

Adapted = nn.Linear | nn.Conv1d | nn.Conv2d


def lora_delta(a_RI: Tensor, b_OR: Tensor, scaling: float, shape: Sequence[int]) -> Tensor:
    """`scaling B A` in the weight's shape; the kernels of convolutions are flattened.

    Example:
        >>> lora_delta(torch.ones(1, 2), torch.ones(3, 1), 0.5, (3, 2)).sum()
        tensor(3.)
    """
    delta_OI = b_OR.flatten(1) @ a_RI.flatten(1)
    delta: Tensor = delta_OI.reshape(tuple(shape)) * scaling
    return delta


def dora_weight(weight: Tensor, delta: Tensor, magnitude_O: Tensor, *, detach_norm: bool = False) -> Tensor:
    """`m (W + delta) / |W + delta|`, norms over all dimensions but the first.

    Args:
        weight: W (O, ...).
        delta: (O, ...).
        magnitude_O: m.
        detach_norm: no gradient flows through the norm.

    Reference:
        Liu et al. 2024, "DoRA: weight-decomposed low-rank adaptation", 2402.09353.
    """
    moved = weight + delta
    norm_O = torch.linalg.vector_norm(moved.flatten(1), dim=1)
    scale_O = magnitude_O / (norm_O.detach() if detach_norm else norm_O)
    scaled: Tensor = moved * scale_O.reshape(-1, *(1,) * (moved.dim() - 1))
    return scaled


class LowRank(nn.Module):
    """`W -> W + s B A`: A drawn as a linear layer's weights, B zero; with `dora` also a magnitude a unit.

    Args:
        weight: (O, ...).
        rank: R.
        scaling: s.
        dora: weights are split into magnitude and direction.
        detach_norm: see `dora_weight`.
        generator: of A.
    """

    def __init__(
        self,
        weight: Tensor,
        *,
        rank: int,
        scaling: float,
        dora: bool,
        detach_norm: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.a = nn.Parameter(torch.empty(rank, inputs))
        # Kaiming uniform with a = sqrt(5): U(-1/sqrt(I), 1/sqrt(I))
        nn.init.uniform_(self.a, -(inputs**-0.5), inputs**-0.5, generator=generator)
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.magnitude = nn.Parameter(weight.detach().flatten(1).norm(dim=1)) if dora else None
        self.scaling, self.detach_norm = scaling, detach_norm

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used."""
        delta = lora_delta(self.a, self.b, self.scaling, weight.shape)
        if self.magnitude is None:
            return weight + delta
        return dora_weight(weight, delta, self.magnitude, detach_norm=self.detach_norm)


def adaptable(network: nn.Module, pattern: str | None, heads: frozenset[str]) -> dict[str, Adapted]:
    """Linear layers and ungrouped convolutions outside of the heads, by name; those whose name `pattern` finds."""
    found: dict[str, Adapted] = {}
    owners: set[int] = set()
    for name, layer in network.named_modules():
        if not isinstance(layer, Adapted) or f"{name}.weight" in heads or id(layer.weight) in owners:
            continue
        fits = isinstance(layer, nn.Linear) or layer.groups == 1
        if fits and (pattern is None or re.search(pattern, name)):
            found[name] = layer
            owners.add(id(layer.weight))
    return found


@dataclass(frozen=True, kw_only=True)
class MergeLowRank(Finish):
    """Parametrized weights become plain ones: the state dict has the keys of the network before."""

    def apply(self, network: nn.Module, data: Data) -> Mapping[str, Any]:
        """Merges in float32, then in the weight's type."""
        merged = 0
        for layer in list(network.modules()):
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
                bias = layer.bias
                if isinstance(bias, nn.Parameter):  # behind the weight again, as the layer's class has it
                    del layer.bias
                    layer.register_parameter("bias", bias)
                merged += 1
        return {"merged_layers": merged}
