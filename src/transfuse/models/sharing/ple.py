"""`model/sharing=ple`: shared and own experts at every stage.

Dimensions in tensor names: N examples, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Gate, Shape, SharedNetwork, Sharing, mix, numel, require_count, shapes


@dataclass(frozen=True, kw_only=True)
class PLE(Sharing):
    """CGC stage by stage: a task's next input is its mixture of the shared experts and its own.

    `x_t := sum_e softmax(gate_t(x_t))_e stage_e(.)`, where shared experts see `x_shared` and own experts `x_t`. In all
    but the last stage `x_shared` becomes a mixture too, of all experts of all tasks. The stem is one for all; each task
    has a neck of its own.

    Attributes:
        num_shared: shared experts of each stage, >= 1; an expert is a stage of the backbone.
        num_own: experts of each task and stage, >= 1.

    Reference:
        Tang et al. 2020, "Progressive Layered Extraction (PLE)", section 4.3.
    """

    num_shared: int = 2
    num_own: int = 1

    def __post_init__(self) -> None:
        require_count("num_shared", self.num_shared)
        require_count("num_own", self.num_own)

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> PLENetwork:
        """Backbones, all from different initial weights, taken apart into stages."""
        shared = [backbone() for _ in range(self.num_shared)]
        own = {name: [backbone() for _ in range(self.num_own)] for name in heads}
        seen = [numel(shape) for shape in shapes(shared[0], input_shape)[:-1]]
        last = len(seen) - 1
        levels = [
            Level(
                shared=[expert.stages[index] for expert in shared],
                own={name: [expert.stages[index] for expert in experts] for name, experts in own.items()},
                seen=size,
                passes_on=index < last,
            )
            for index, size in enumerate(seen)
        ]
        necks = nn.ModuleDict({name: experts[0].neck for name, experts in own.items()})
        return PLENetwork(shared[0].stem, levels, necks, heads)


class Level(nn.Module):
    """One stage: experts and gates.

    Args:
        shared: experts that see the shared stream.
        own: task -> experts that see the task's stream.
        seen: numbers of one example of a stream before the stage: what gates see.
        passes_on: whether there is a shared stream after it.
    """

    def __init__(
        self,
        *,
        shared: Sequence[nn.Module],
        own: Mapping[str, Sequence[nn.Module]],
        seen: int,
        passes_on: bool,
    ) -> None:
        super().__init__()
        self.shared = nn.ModuleList(shared)
        self.own = nn.ModuleDict({name: nn.ModuleList(experts) for name, experts in own.items()})
        self.gates = nn.ModuleDict({name: Gate(seen, len(shared) + len(experts)) for name, experts in own.items()})
        every = len(shared) + sum(map(len, own.values()))
        self.shared_gate = Gate(seen, every) if passes_on else None

    def forward(self, streams: Mapping[str, Tensor], common: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The tasks' streams and the shared one after the stage; after the last there is no use for the latter."""
        shared = [expert(common) for expert in self.shared]
        own = {
            name: [expert(streams[name]) for expert in experts]
            for name, experts in self.own.items()
            if isinstance(experts, nn.ModuleList)
        }
        after = {name: mix(gate(streams[name]), [*shared, *own[name]]) for name, gate in self.gates.items()}
        if self.shared_gate is None:
            return after, common
        return after, mix(self.shared_gate(common), [*shared, *(each for experts in own.values() for each in experts)])


class PLENetwork(SharedNetwork):
    """A stem, levels, a neck and a head a task.

    Args:
        stem: of all tasks.
        levels: in order.
        necks: one a task.
        heads: one a task.
    """

    def __init__(self, stem: nn.Module, levels: Sequence[Level], necks: nn.ModuleDict, heads: nn.ModuleDict) -> None:
        super().__init__(heads)
        self.stem = stem
        self.levels = nn.ModuleList(levels)
        self.necks = necks

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Level by level."""
        common = self.stem(inputs)
        streams = dict.fromkeys(self.heads, common)
        for level in self.levels:
            streams, common = level(streams, common)
        return {name: neck(streams[name]) for name, neck in self.necks.items()}
