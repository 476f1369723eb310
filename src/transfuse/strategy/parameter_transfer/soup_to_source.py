"""`parameter_transfer/soup_to_source`: part of the way back to the source's weights, as validation says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from transfuse.base_models.model import BaseModel, Description
from transfuse.strategy.parameter_transfer.base import ParameterTransfer, plain
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.types import Development, HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import Phase, Plan

GRID = tuple(step / 10 for step in range(11))


@dataclass(frozen=True, kw_only=True)
class SoupToSource(ParameterTransfer):
    """`theta = (1 - c) w0 + c w` on what came from the source, after any policy; c is chosen on validation data.

    BatchNorm statistics are measured anew for each c.

    Attributes:
        source: has no meaning here, like `head` and `min_coverage`: `inner` says it.
        inner: the policy that trains.
        coefficients: that are tried, in [0, 1]: 1 is `inner` itself, 0 the source's backbone under the trained head.

    Reference:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), 2109.01903.
    """

    inner: ParameterTransfer = field(default_factory=FullFinetune)
    coefficients: Sequence[float] = GRID

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "coefficients", tuple(map(float, self.coefficients)))
        object.__setattr__(self, "source", self.inner.source)
        if not self.coefficients or not all(math.isfinite(c) and 0 <= c <= 1 for c in self.coefficients):
            raise HyperparameterError(
                f"`coefficients` should be numbers in [0, 1]. Found `coefficients = {list(self.coefficients)}`."
            )

    def check(self, development: Development, base_models: Description) -> None:
        """That of the inner policy."""
        self.inner.check(development, base_models)

    def comparable_from(self, total_steps: int) -> int:
        """That of the inner policy."""
        return self.inner.comparable_from(total_steps)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """Those of the inner policy."""
        return self.inner.phases(network)

    def prepare(self, source: BaseModel, target: Development, generator: torch.Generator) -> Plan:
        """The inner plan, ended by the choice of c."""
        plan = self.inner.prepare(source, target, generator)
        return self._ended(plan, frozenset((*plan.report["matched"], *plan.report["adapted"])))

    def plan_of(
        self,
        network: nn.Module,
        source: BaseModel,
        carried: frozenset[str],
        report: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Plan:
        """The inner plan, ended by the choice of c."""
        return self._ended(self.inner.plan_of(network, source, carried, report, generator), carried)

    def _ended(self, plan: Plan, carried: frozenset[str]) -> Plan:
        from transfuse.training.interpolation import Interpolate

        state = plan.network.state_dict()
        starts = {plain(key): value.detach().clone() for key, value in state.items() if plain(key) in carried}
        return replace(plan, finish=(*plan.finish, Interpolate(starts=starts, coefficients=tuple(self.coefficients))))
