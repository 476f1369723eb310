"""`base_models=finetuned`: one shared start, several fine-tunings: what weight fusion needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count, shortened
from transfuse.base_models.recipe import Recipe
from transfuse.randomness import derive_seed
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Finetuned(BaseModelRecipe):
    """One network trained briefly, then fine-tuned `count` times with other seeds and learning rates.

    Members that share a start lie in one basin of the loss, so their weights can be averaged (Wortsman et al. 2022,
    2203.05482).

    Attributes:
        count: number of members, >= 1. A pool of 3 is a prefix of the pool of 5.
        start_share: share of the training budget that the shared start gets, in (0, 1].
        lr_factors: fine-tuning learning rates relative to `training.lr`, > 0, taken in turn.
    """

    count: int = 5
    start_share: float = 0.3
    lr_factors: tuple[float, ...] = (1.0, 0.5, 0.25)

    def __post_init__(self) -> None:
        require_count(self.count)
        if not 0 < self.start_share <= 1:
            raise HyperparameterError(f"`start_share` should be in (0, 1]. Found `start_share = {self.start_share}`.")
        if not self.lr_factors or min(self.lr_factors) <= 0:
            raise HyperparameterError(
                f"`lr_factors` should be positive numbers. Found `lr_factors = {list(self.lr_factors)}`."
            )

    def lay_out(self, setting: Setting) -> Members:
        """The start, then the fine-tunings."""
        start = replace(
            setting.recipe("finetuned-start", seed=derive_seed(setting.seed, "start")),
            training=shortened(setting.training, self.start_share),
        )
        return Members(recipes=tuple(self._member(setting, start, index) for index in range(self.count)), base=start)

    def _member(self, setting: Setting, start: Recipe, index: int) -> Recipe:
        factor = self.lr_factors[index % len(self.lr_factors)]
        return replace(
            setting.recipe(f"finetuned-{index}", seed=setting.member_seed(index)),
            training=replace(setting.training, lr=setting.training.lr * factor),
            start=start,
        )
