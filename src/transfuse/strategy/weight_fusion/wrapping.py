"""Weight fusions around another one."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field

from transfuse.base_models.model import Description
from transfuse.conformity import under
from transfuse.strategy.weight_fusion.base import BatchNormMode, Fused, WeightFusion
from transfuse.strategy.weight_fusion.linear import LinearMerge
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.types import Development, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Wrapping(WeightFusion, ABC):
    """A method that asks another one; what is fused, and how BatchNorm's statistics are made, is said by that one.

    Attributes:
        inner: a method that works tensor by tensor.
    """

    inner: WeightFusion = field(default_factory=LinearMerge)
    batch_norm: BatchNormMode = field(default="reestimate", init=False, repr=False)
    fuse: Fused | None = field(default=None, init=False, repr=False)
    only: tuple[str, ...] = field(default=(), init=False, repr=False)
    skip: tuple[str, ...] = field(default=(), init=False, repr=False)

    @property
    def uses_base(self) -> bool:
        """The inner method's."""
        return self.inner.uses_base

    def check(self, development: Development, base_models: Description) -> None:
        """The inner method's."""
        with under("inner"):
            self.inner.check(development, base_models)

    def _refuse_searches(self, reason: str) -> None:
        """Raises where the inner method searches numbers itself."""
        assert isinstance(self.inner, TensorFusion), "checked before"
        if self.inner.searches:
            fields = ", ".join(f"{name} = search" for name in self.inner.searches)
            raise HyperparameterError(f"`inner` should have numbers, {reason}. Found {fields}.")
