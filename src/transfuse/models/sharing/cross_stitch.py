"""`model/sharing=cross_stitch`: a backbone a task, whose stages exchange what they found.

Dimensions in tensor names: T tasks, N examples, C channels (the first axis of an example).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Shape, SharedNetwork, Sharing, shapes
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class CrossStitch(Sharing):
    """After each stage `x_t := sum_s A_ts x_s`; A is learned for each stage.

    Attributes:
        diagonal: A_tt at the start, in [0, 1]; the other entries of a row share the rest, so that rows sum to 1 and
            activations keep their size.
        per_channel: a matrix for each channel (each unit of a vector) instead of one a stage.

    Reference:
        Misra et al. 2016, "Cross-stitch Networks for Multi-task Learning", 1604.03539.
    """

    diagonal: float = 0.9
    per_channel: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.diagonal <= 1:
            raise HyperparameterError(f"`diagonal` should be in [0, 1]. Found `diagonal = {self.diagonal}`.")

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> CrossStitchNetwork:
        """One backbone a task, from different initial weights."""
        backbones = [backbone() for _ in heads]
        sizes = [shape[0] for shape in shapes(backbones[0], input_shape)[1:]]
        num_tasks = len(heads)
        start_TT = torch.full((num_tasks, num_tasks), (1 - self.diagonal) / (num_tasks - 1))
        start_TT.fill_diagonal_(self.diagonal)
        stitches = [start_TT[..., None].repeat(1, 1, size if self.per_channel else 1) for size in sizes]
        return CrossStitchNetwork(backbones, stitches, heads)


class CrossStitchNetwork(SharedNetwork):
    """Backbones of all tasks side by side.

    Args:
        backbones: one a task.
        stitches: of each stage, (T, T, C) or (T, T, 1).
        heads: one a task.
    """

    def __init__(self, backbones: Sequence[Backbone], stitches: Sequence[Tensor], heads: nn.ModuleDict) -> None:
        super().__init__(heads)
        self.backbones = nn.ModuleList(backbones)
        self.stitches = nn.ParameterList(stitches)

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Stage by stage, for all tasks at once."""
        backbones = [backbone for backbone in self.backbones if isinstance(backbone, Backbone)]
        hidden = [backbone.stem(inputs) for backbone in backbones]
        for index, stitch_TTC in enumerate(self.stitches):
            stages = torch.stack(
                [backbone.stages[index](each) for backbone, each in zip(backbones, hidden, strict=True)]
            )
            weights_TTC = stitch_TTC.expand(-1, -1, stages.shape[2])
            hidden = list(torch.einsum("tsc,snc...->tnc...", weights_TTC, stages))
        found = [backbone.neck(each) for backbone, each in zip(backbones, hidden, strict=True)]
        return dict(zip(self.heads, found, strict=True))
