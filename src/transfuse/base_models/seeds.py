"""`base_models=seeds`: one recipe, several seeds (deep ensembles, Lakshminarayanan et al. 2017, 1612.01474)."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count


@dataclass(frozen=True, kw_only=True)
class Seeds(BaseModelRecipe):
    """Members that differ in initialization and batch order alone.

    Attributes:
        count: number of members, >= 1. A pool of 3 is a prefix of the pool of 5.
    """

    count: int = 5

    def __post_init__(self) -> None:
        require_count(self.count)

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a seed."""
        return Members(
            recipes=tuple(
                setting.recipe(f"seeds-{index}", seed=setting.member_seed(index)) for index in range(self.count)
            )
        )
