"""`model/sharing=cgc`: experts that all tasks share, experts of each task, and a gate a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Gate, Shape, SharedNetwork, Sharing, mix, numel, require_count


@dataclass(frozen=True, kw_only=True)
class CGC(Sharing):
    """`features_t(x) = sum_e softmax(gate_t(x))_e expert_e(x)` over the shared experts, then the task's own.

    Attributes:
        num_shared: experts for all tasks, >= 1; an expert is a backbone.
        num_own: experts of each task, >= 1.

    Reference:
        Tang et al. 2020, "Progressive Layered Extraction (PLE)", section 4.2: customized gate control.
    """

    num_shared: int = 2
    num_own: int = 1

    def __post_init__(self) -> None:
        require_count("num_shared", self.num_shared)
        require_count("num_own", self.num_own)

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> CGCNetwork:
        """Backbones, all from different initial weights."""
        shared = [backbone() for _ in range(self.num_shared)]
        own = {name: [backbone() for _ in range(self.num_own)] for name in heads}
        seen = numel(input_shape)
        gates = nn.ModuleDict({name: Gate(seen, self.num_shared + self.num_own) for name in heads})
        return CGCNetwork(shared, own, gates, heads)


class CGCNetwork(SharedNetwork):
    """Experts, gates, heads.

    Args:
        shared: experts of all tasks, from inputs to features.
        own: task -> its experts.
        gates: task -> its gate, over the shared experts and then its own.
        heads: one a task.
    """

    def __init__(
        self,
        shared: Sequence[nn.Module],
        own: Mapping[str, Sequence[nn.Module]],
        gates: nn.ModuleDict,
        heads: nn.ModuleDict,
    ) -> None:
        super().__init__(heads)
        self.shared = nn.ModuleList(shared)
        self.own = nn.ModuleDict({name: nn.ModuleList(experts) for name, experts in own.items()})
        self.gates = gates

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Each expert once."""
        shared = [expert(inputs) for expert in self.shared]
        found = {}
        for name, gate in self.gates.items():
            own = self.own[name]
            assert isinstance(own, nn.ModuleList), "made above"
            found[name] = mix(gate(inputs), [*shared, *(expert(inputs) for expert in own)])
        return found
