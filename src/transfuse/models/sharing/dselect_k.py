"""`model/sharing=dselect_k`: each task picks k of the shared experts by a gate that can be trained by gradients.

Dimensions in tensor names: N examples, K selectors, B bits, E experts, P = 2^B codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Shape, SharedNetwork, Sharing, mix, numel, require_count
from transfuse.types import HyperparameterError

_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class DSelectK(Sharing):
    """`features_t(x) = sum_e g_te(x) expert_e(x)`, g of at most k experts.

    A selector is a binary code: its bits are `smoothstep(z)`, 0 or 1 outside of a window around 0, and expert e gets
    the product over the bits of its code, most significant first. k selectors are mixed by a softmax.

    Attributes:
        num_experts: E >= 2; an expert is a backbone.
        num_selected: k selectors, in 1..E.
        gamma: width of the window, > 0: bits are exact outside of [-gamma / 2, gamma / 2].
        entropy_weight: of the selectors' entropy in each task's loss, >= 0, so that bits become exact; where E is no
            power of 2, also of `1 / mass on codes below E`.

    Reference:
        Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts", 2106.03760.
    """

    num_experts: int = 4
    num_selected: int = 2
    gamma: float = 1.0
    entropy_weight: float = 1e-6

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts, 2)
        if not 1 <= self.num_selected <= self.num_experts:
            raise HyperparameterError(
                f"`num_selected` should be in 1..num_experts. Found `num_selected = {self.num_selected}`."
            )
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise HyperparameterError(f"`gamma` should be > 0 and finite. Found `gamma = {self.gamma}`.")
        if not (math.isfinite(self.entropy_weight) and self.entropy_weight >= 0):
            raise HyperparameterError(
                f"`entropy_weight` should be >= 0 and finite. Found `entropy_weight = {self.entropy_weight}`."
            )

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> DSelectKNetwork:
        """E backbones."""
        experts = [backbone() for _ in range(self.num_experts)]
        gates = {name: Selectors(numel(input_shape), self.num_experts, self.num_selected, self.gamma) for name in heads}
        return DSelectKNetwork(experts, nn.ModuleDict(gates), heads, entropy_weight=self.entropy_weight)


def smoothstep(values: Tensor, gamma: float) -> Tensor:
    """0 up to -gamma / 2, 1 from gamma / 2 on, the cubic with slope 0 at both ends between.

    Example:
        >>> smoothstep(torch.tensor([-1.0, 0.0, 0.25, 1.0]), gamma=1.0)
        tensor([0.0000, 0.5000, 0.8438, 1.0000])
    """
    inside = values.clamp(-gamma / 2, gamma / 2)
    return -2 / gamma**3 * inside**3 + 3 / (2 * gamma) * inside + 0.5


class Selectors(nn.Module):
    """The gate of one task.

    Args:
        inputs: numbers that it sees.
        experts: E.
        selected: k.
        gamma: of `smoothstep`.
    """

    codes_PB: Tensor

    def __init__(self, inputs: int, experts: int, selected: int, gamma: float) -> None:
        super().__init__()
        bits = math.ceil(math.log2(experts))
        self.experts, self.selected, self.gamma = experts, selected, gamma
        self.code = nn.Linear(inputs, selected * bits)
        self.weight = nn.Linear(inputs, selected)
        for parameter in self.code.parameters():  # near 1/2, where every bit still moves
            nn.init.uniform_(parameter, -gamma / 100, gamma / 100)
        numbers_P1 = torch.arange(2**bits).unsqueeze(1)
        self.register_buffer("codes_PB", (numbers_P1 >> torch.arange(bits - 1, -1, -1)) & 1, persistent=False)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(N, E) shares of the experts, and the scalar that is added to the loss."""
        flat_ND = seen.flatten(1)
        bits_NKB = smoothstep(self.code(flat_ND), self.gamma).reshape(len(flat_ND), self.selected, -1)
        # product over bits of s where the code has a 1, of 1 - s where it has a 0
        chosen_NKPB = torch.where(self.codes_PB.bool(), bits_NKB.unsqueeze(2), 1 - bits_NKB.unsqueeze(2))
        chosen_NKP = chosen_NKPB.prod(dim=3)
        there_NKE = chosen_NKP[..., : self.experts]
        shares_NE = torch.einsum("nk,nke->ne", torch.softmax(self.weight(flat_ND), dim=1), there_NKE)
        # the logarithm's argument stays above 0: an exact bit has a finite gradient
        penalty = -(there_NKE * (there_NKE + _TINY).log()).sum(dim=(1, 2)).mean()
        if self.experts < len(self.codes_PB):
            penalty = penalty + there_NKE.sum(dim=2).clamp_min(_TINY).reciprocal().sum(dim=1).mean()
        return shares_NE, penalty


class DSelectKNetwork(SharedNetwork):
    """Experts, gates, heads.

    Args:
        experts: E modules from inputs to features.
        gates: task -> `Selectors`.
        heads: one a task.
        entropy_weight: of the gates' penalties.
    """

    def __init__(
        self, experts: Sequence[nn.Module], gates: nn.ModuleDict, heads: nn.ModuleDict, *, entropy_weight: float
    ) -> None:
        super().__init__(heads)
        self.experts = nn.ModuleList(experts)
        self.gates = gates
        self.entropy_weight = entropy_weight
        self._penalties: dict[str, Tensor] = {}

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Each expert once, then a mixture a task."""
        found = [expert(inputs) for expert in self.experts]
        features = {}
        for name, gate in self.gates.items():
            shares_NE, penalty = gate(inputs)
            features[name] = mix(shares_NE, found)
            if self.training:
                self._penalties[name] = self.entropy_weight * penalty
        return features

    def penalties(self) -> Mapping[str, Tensor]:
        """Task -> what its loss gets added, of the last training batch; each is given once."""
        found, self._penalties = self._penalties, {}
        return found
