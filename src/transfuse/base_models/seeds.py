"""`base_models=seeds`: one recipe, several seeds (deep ensembles, Lakshminarayanan et al. 2017, 1612.01474)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count
from transfuse.base_models.recipe import Recipe
from transfuse.training.stacked import check_together
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Seeds(BaseModelRecipe):
    """Members that differ in initialization and batch order alone.

    Attributes:
        count: number of members, >= 1. A pool of 3 is a prefix of the pool of 5.
        train: `one_by_one`, or `together`: all in one vectorized step, which saves time for small networks alone
            (hidden layers of some 64 units); one device, no BatchNorm, no early stopping. Weights then agree with those
            of `one_by_one` up to rounding, and dropout draws other units.
    """

    count: int = 5
    train: Literal["one_by_one", "together"] = "one_by_one"

    def __post_init__(self) -> None:
        require_count(self.count)
        if self.train not in ("one_by_one", "together"):
            raise HyperparameterError(f"`train` should be one_by_one or together. Found `train = {self.train}`.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a seed."""
        if self.train == "together":
            _require_together(setting)
        return Members(recipes=tuple(self._member(setting, index) for index in range(self.count)))

    def _member(self, setting: Setting, index: int) -> Recipe:
        return replace(setting.recipe(f"seeds-{index}", seed=setting.member_seed(index)), train=self.train)


def _require_together(setting: Setting) -> None:
    if setting.world_size > 1:
        raise HyperparameterError(
            f"`base_models.train = together` trains on one device. Found {setting.world_size} devices."
        )
    if setting.precision != "32-true":
        raise HyperparameterError(
            f"`base_models.train = together` trains in float32. Found `trainer.precision = {setting.precision}`."
        )
    check_together([setting.recipe("seeds", seed=0).build()], setting.training)
