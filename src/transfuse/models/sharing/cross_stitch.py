"""`model/sharing=cross_stitch`: a backbone a task, whose stages exchange what they found.

Dimensions in tensor names: T tasks, N examples, C channels (the first axis of an image, the last of anything else).
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
        found = shapes(backbones[0], input_shape)[1:]
        sizes = [shape[0 if len(shape) == 3 else -1] if self.per_channel else 1 for shape in found]
        rest = (1 - self.diagonal) / (len(heads) - 1)
        stitches = [
            {
                name: torch.full((len(heads), size), rest).index_fill_(0, torch.tensor(task), self.diagonal)
                for task, name in enumerate(heads)
            }
            for size in sizes
        ]
        return CrossStitchNetwork(backbones, stitches, heads)


class CrossStitchNetwork(SharedNetwork):
    """Backbones of all tasks side by side.

    Args:
        backbones: one a task.
        stitches: of each stage: task t -> its row `A_t`, (T, C) or (T, 1). Rows are parameters of their own: after the
            last stage each serves one task alone.
        heads: one a task.
    """

    def __init__(
        self, backbones: Sequence[Backbone], stitches: Sequence[Mapping[str, Tensor]], heads: nn.ModuleDict
    ) -> None:
        super().__init__(heads)
        self.backbones = nn.ModuleList(backbones)
        self.stitches = nn.ModuleList(nn.ParameterDict(dict(rows)) for rows in stitches)

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Stage by stage, for all tasks at once."""
        backbones = [backbone for backbone in self.backbones if isinstance(backbone, Backbone)]
        hidden = [backbone.stem(inputs) for backbone in backbones]
        for index, rows in enumerate(self.stitches):
            assert isinstance(rows, nn.ParameterDict), "made above"
            found = torch.stack(
                [backbone.stages[index](each) for backbone, each in zip(backbones, hidden, strict=True)]
            )
            hidden = [stitched(rows[name], found) for name in self.heads]
        features = [backbone.neck(each) for backbone, each in zip(backbones, hidden, strict=True)]
        return dict(zip(self.heads, features, strict=True))


def stitched(row_TC: Tensor, stages: Tensor) -> Tensor:
    """`sum_s A_s x_s`, channel by channel.

    Args:
        row_TC: (T, C), or (T, 1) for one number a task.
        stages: of the T backbones: (T, N, C, height, width), or (T, N, ..., C).

    Example:
        >>> stitched(torch.tensor([[0.75], [0.25]]), torch.tensor([[[4.0]], [[8.0]]]))
        tensor([[5.]])
    """
    axis = 2 if stages.dim() == 5 else stages.dim() - 1
    shape = [1] * stages.dim()
    shape[0], shape[axis] = row_TC.shape
    return (row_TC.reshape(shape) * stages).sum(dim=0)
