"""`model/sharing=mmoe`: experts that all tasks share, and a gate a task.

Dimensions in tensor names: N examples, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Gate, Shape, SharedNetwork, Sharing, mix, numel, require_count, shapes
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class MMoE(Sharing):
    """`features_t(x) = sum_e softmax(gate_t(x))_e expert_e(x)`; an expert is a backbone.

    Attributes:
        num_experts: E >= 1; they start from different weights.
        gate_on: what gates see, flattened: the `input`, or what the first expert's `stem` makes of it.

    Reference:
        Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts".
    """

    num_experts: int = 4
    gate_on: str = "input"

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts)
        if self.gate_on not in ("input", "stem"):
            raise HyperparameterError(f"`gate_on` should be input or stem. Found `gate_on = {self.gate_on}`.")

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> MMoENetwork:
        """E backbones."""
        experts = [backbone() for _ in range(self.num_experts)]
        on_stem = self.gate_on == "stem"
        seen = numel(shapes(experts[0], input_shape)[0] if on_stem else input_shape)
        gates = nn.ModuleDict({name: Gate(seen, self.num_experts) for name in heads})
        return MMoENetwork(experts, gates, heads, on_stem=on_stem)


class MMoENetwork(SharedNetwork):
    """Experts, gates, heads.

    Args:
        experts: E modules from inputs to features.
        gates: one a task, from inputs to (N, E).
        heads: one a task.
        on_stem: whether gates see what the first expert's stem gives.
    """

    def __init__(
        self, experts: Sequence[nn.Module], gates: nn.ModuleDict, heads: nn.ModuleDict, *, on_stem: bool = False
    ) -> None:
        super().__init__(heads)
        self.experts = nn.ModuleList(experts)
        self.gates = gates
        self.on_stem = on_stem

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Each expert once, then a mixture a task."""
        found = [expert(inputs) for expert in self.experts]
        first = self.experts[0]
        seen = first.stem(inputs) if self.on_stem and isinstance(first, Backbone) else inputs
        return {name: mix(gate(seen), found) for name, gate in self.gates.items()}
