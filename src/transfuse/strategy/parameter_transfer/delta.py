"""`parameter_transfer/delta`: feature maps stay near the source's, channel by channel."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.layers import layers_of, stages_of
from transfuse.strategy.parameter_transfer.ranges import require_nonnegative

if TYPE_CHECKING:
    from transfuse.training.plan import Penalty


@dataclass(frozen=True, kw_only=True)
class Delta(FullFinetune):
    """`min L + alpha/2 sum_j C_j/(H_j W_j) sum_c a_jc |F_jc(w) - F_jc(w0)|^2 + beta/2 |v|^2`, mean over the batch.

    Channels count alike, `a_jc = 1/C_j`. v are parameters that did not come from the source.

    Attributes:
        alpha: >= 0.
        beta: >= 0.
        layers: names of modules; none: one a stage.

    Reference:
        Li et al. 2019, "DELTA: deep learning transfer using feature map with attention for convolutional networks",
        1901.09229. The paper's attention by the importance of channels is not built.
    """

    alpha: float = 0.01
    beta: float = 0.01
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("alpha", self.alpha)
        require_nonnegative("beta", self.beta)
        object.__setattr__(self, "layers", tuple(self.layers))

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """The terms, from the network as it was loaded."""
        from transfuse.training.penalties import NearSource, StartingPoint

        layers = layers_of(network, self.layers or stages_of(network, self.name), self.name)
        others = tuple(name for name, _ in network.named_parameters() if name not in carried)
        return (NearSource(copy.deepcopy(network), layers, self.alpha), StartingPoint({}, 0.0, others, self.beta))
