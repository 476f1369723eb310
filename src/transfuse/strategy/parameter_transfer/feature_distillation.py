"""`parameter_transfer/feature_distillation`: features stay near the source's."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.layers import layers_of
from transfuse.strategy.parameter_transfer.ranges import require_nonnegative

if TYPE_CHECKING:
    from transfuse.training.plan import Penalty


@dataclass(frozen=True, kw_only=True)
class FeatureDistillation(FullFinetune):
    """`min L + weight sum_j |F_j(w) - F_j(w0)|^2`, mean over the batch: hints by the source on the target's inputs.

    Source and target have one architecture here, so the features are compared as they are.

    Attributes:
        weight: >= 0.
        layers: names of modules; none: the features before the heads.
        normalize: each example's features to norm 1 first.

    Reference:
        Romero et al. 2015, "FitNets: hints for thin deep nets", 1412.6550.
    """

    weight: float = 1.0
    layers: tuple[str, ...] = ()
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("weight", self.weight)
        object.__setattr__(self, "layers", tuple(self.layers))

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """The term, from the network as it was loaded."""
        from transfuse.training.penalties import NearSource

        layers = layers_of(network, self.layers or ("backbone",), self.name)
        return (NearSource(copy.deepcopy(network), layers, self.weight, normalize=self.normalize),)
