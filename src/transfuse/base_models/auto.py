"""`base_models=auto`: the pool that fits the problem's kind."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count
from transfuse.base_models.per_task import PerTask
from transfuse.base_models.seeds import Seeds
from transfuse.base_models.source import Source


@dataclass(frozen=True, kw_only=True)
class Auto(BaseModelRecipe):
    """`seeds` for single-task, `per_task` for multi-task, `source` for transfer problems.

    Attributes:
        count: members of `seeds`; the other pools have as many as the problem says.
    """

    count: int = 5

    def __post_init__(self) -> None:
        require_count(self.count)

    def lay_out(self, setting: Setting) -> Members:
        """The members of the pool that fits."""
        pools: dict[str, BaseModelRecipe] = {
            "single_task": Seeds(count=self.count),
            "multi_task": PerTask(),
            "transfer": Source(),
        }
        return pools[setting.development.kind].lay_out(setting)
