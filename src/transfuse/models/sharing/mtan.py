"""`model/sharing=mtan`: one backbone, of whose stages each task takes what it attends to.

Dimensions in tensor names: N examples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from transfuse.models.network import Backbone
from transfuse.models.sharing.base import Shape, SharedNetwork, Sharing, require_count, shapes


@dataclass(frozen=True, kw_only=True)
class MTAN(Sharing):
    """Per task and stage `a = sigmoid(f([u, r]))`, `r := g(a * p)`.

    u is what the shared stage sees, p what it gives, r what the task took from the stage before (nothing before the
    first). f and g are 1 x 1 convolutions on images and linear layers on vectors and patches; where the stage makes
    images smaller, a is averaged to their size.

    Attributes:
        reduction: the inner width of f is that of p divided by it, at least 1; >= 1.

    Reference:
        Liu, Johns & Davison 2019, "End-to-End Multi-Task Learning with Attention", 1803.10704. Differs from the paper:
        a stage is attended to as a whole, without BatchNorm.
    """

    reduction: int = 4

    def __post_init__(self) -> None:
        require_count("reduction", self.reduction)

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> MTANNetwork:
        """One backbone and a mask a task and stage."""
        shared = backbone()
        found = shapes(shared, input_shape)
        attention = {
            name: nn.ModuleList(
                Attention(before, after, first=index == 0, reduction=self.reduction)
                for index, (before, after) in enumerate(pairwise(found))
            )
            for name in heads
        }
        return MTANNetwork(shared, nn.ModuleDict(attention), heads)


class Attention(nn.Module):
    """The mask of one task over one stage.

    Args:
        before: shape of one example that the stage sees.
        after: that it gives.
        first: whether there is nothing yet that the task took.
        reduction: of the inner width.
    """

    def __init__(self, before: Shape, after: Shape, *, first: bool, reduction: int) -> None:
        super().__init__()
        images = len(after) == 3
        seen, given = (shape[0] if images else shape[-1] for shape in (before, after))
        inner = max(1, given // reduction)
        self.mask = nn.Sequential(
            _pointwise(seen if first else 2 * seen, inner, images=images),
            nn.ReLU(),
            _pointwise(inner, given, images=images),
        )
        self.take = nn.Sequential(_pointwise(given, given, images=images), nn.ReLU())

    def forward(self, seen: Tensor, given: Tensor, taken: Tensor | None) -> Tensor:
        """What the task takes from the stage, of the shape of `given`."""
        images = given.dim() == 4
        both = seen if taken is None else torch.cat([seen, taken], dim=1 if images else -1)
        mask = torch.sigmoid(self.mask(both))
        if images:
            mask = adaptive_avg_pool2d(mask, (given.shape[-2], given.shape[-1]))
        taken_now: Tensor = self.take(mask * given)
        return taken_now


def _pointwise(inputs: int, outputs: int, *, images: bool) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel_size=1) if images else nn.Linear(inputs, outputs)


class MTANNetwork(SharedNetwork):
    """A backbone, attention, heads.

    Args:
        backbone: of all tasks.
        attention: task -> its masks, stage by stage.
        heads: one a task.
    """

    def __init__(self, backbone: Backbone, attention: nn.ModuleDict, heads: nn.ModuleDict) -> None:
        super().__init__(heads)
        self.backbone = backbone
        self.attention = attention

    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """The shared stages once, and the tasks' masks beside them."""
        seen = self.backbone.stem(inputs)
        taken: dict[str, Tensor | None] = dict.fromkeys(self.heads)
        for index, stage in enumerate(self.backbone.stages):
            given = stage(seen)
            for name, masks in self.attention.items():
                assert isinstance(masks, nn.ModuleList), "made above"
                taken[name] = masks[index](seen, given, taken[name])
            seen = given
        return {name: self.backbone.neck(each) for name, each in taken.items()}
