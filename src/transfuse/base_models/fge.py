"""`base_models=fge`: fast geometric ensembles, short cycles from a trained model (Garipov et al. 2018, 1802.10026)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.checkpoints import file_recipe
from transfuse.base_models.cycles import cycle_steps, require_cycles, taken_at
from transfuse.base_models.recipe import Recipe
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class FGE(BaseModelRecipe):
    """Members of one training that goes on from a trained model with a triangular learning rate.

    In each cycle the rate climbs from `lr_low` to `lr_high` and falls back; the weights at its end are a member. They
    stay in the start's neighborhood, where one can go from member to member without leaving low loss.

    Differs from the paper: its cycles begin and end at the high rate and give their member in the middle; ours are
    shifted by half, so that no half cycle is trained for nothing.

    Attributes:
        start: file of weights for the run's model; None for the first member of `seeds`, which is trained, or found in
            the store, as in any other run.
        cycles: number of members, >= 1. A pool of 3 is a training of its own, not a prefix of the pool of 4.
        epochs_per_cycle: >= 1.
        lr_high: largest learning rate, > 0; None for `training.lr`.
        lr_low: smallest one, in [0, lr_high]; None for a hundredth of `lr_high`, as in the paper.
    """

    start: str | None = None
    cycles: int = 4
    epochs_per_cycle: int = 2
    lr_high: float | None = None
    lr_low: float | None = None

    def __post_init__(self) -> None:
        require_cycles(self.cycles, self.epochs_per_cycle)
        if self.lr_high is not None and not self.lr_high > 0:
            raise HyperparameterError(f"`lr_high` should be > 0. Found `lr_high = {self.lr_high}`.")
        if self.lr_low is not None and self.lr_low < 0:
            raise HyperparameterError(f"`lr_low` should be >= 0. Found `lr_low = {self.lr_low}`.")

    def lay_out(self, setting: Setting) -> Members:
        """The start, then one recipe a cycle."""
        start = self._start(setting)
        high = setting.training.lr if self.lr_high is None else self.lr_high
        low = high / 100 if self.lr_low is None else self.lr_low
        if low > high:
            raise HyperparameterError(
                f"`base_models.lr_low` should be at most `base_models.lr_high` ({high}). "
                f"Found `base_models.lr_low = {low}`."
            )
        steps = cycle_steps(setting, self.cycles, self.epochs_per_cycle)
        training = replace(
            setting.training,
            epochs=None,
            steps=self.cycles * steps,
            lr=high,
            lr_low=low,
            schedule="triangular",
            cycles=self.cycles,
            warmup=0.0,
            patience=None,
            keep="last",
        )
        run = replace(setting.recipe("fge", seed=setting.member_seed(1)), training=training, start=start)
        return Members(recipes=taken_at(run, [cycle * steps for cycle in range(1, self.cycles + 1)]), base=start)

    def _start(self, setting: Setting) -> Recipe:
        if self.start is not None:
            return file_recipe(setting, Path(self.start), field="base_models.start")
        return setting.recipe("seeds-0", seed=setting.member_seed(0))
