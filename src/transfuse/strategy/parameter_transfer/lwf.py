"""`parameter_transfer/lwf`: the target's inputs keep their old logits under the old head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.models.features import require_network
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.ranges import require_nonnegative, require_positive

if TYPE_CHECKING:
    from transfuse.training.plan import Penalty


@dataclass(frozen=True, kw_only=True)
class Lwf(FullFinetune):
    """`min L + weight T^2 KL(old logits || new logits of the old head)` on the target's inputs.

    The old head stays as it is.

    Attributes:
        weight: >= 0.
        temperature: T > 0.

    Reference:
        Li & Hoiem 2016, "Learning without forgetting", 1606.09282.
    """

    weight: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("weight", self.weight)
        require_positive("temperature", self.temperature)

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """The term, from the source's network."""
        from transfuse.training.penalties import OldTask

        require_network(network, self.name)
        old = source.network()
        require_network(old, self.name)
        return (OldTask(old, self.weight, self.temperature),)
