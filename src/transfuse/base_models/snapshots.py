"""`base_models=snapshots`: one training, a member at each learning-rate cycle's end (Huang et al. 2017, 1704.00109)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.cycles import cycle_steps, require_cycles, taken_at
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Snapshots(BaseModelRecipe):
    """Members of one training with a cyclic cosine learning rate.

    In each cycle the rate falls from `max_lr` to 0 (`training.lr_low`), so that the weights settle; then it jumps back,
    so that the next cycle ends elsewhere. All members together cost one training.

    Attributes:
        cycles: of the learning rate, >= 1.
        epochs_per_cycle: >= 1; None for equal parts of the training budget.
        max_lr: learning rate at the begin of each cycle, > 0; None for `training.lr`.
        keep: how many of the last cycles give a member, in [1, cycles]; None for all. Early ones are weaker.
    """

    cycles: int = 5
    epochs_per_cycle: int | None = None
    max_lr: float | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        require_cycles(self.cycles, self.epochs_per_cycle)
        if self.max_lr is not None and not self.max_lr > 0:
            raise HyperparameterError(f"`max_lr` should be > 0. Found `max_lr = {self.max_lr}`.")
        if self.keep is not None and not 1 <= self.keep <= self.cycles:
            raise HyperparameterError(f"`keep` should be in [1, {self.cycles}]. Found `keep = {self.keep}`.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a cycle, the last `keep` of them."""
        steps = cycle_steps(setting, self.cycles, self.epochs_per_cycle)
        training = replace(
            setting.training,
            epochs=None,
            steps=self.cycles * steps,
            lr=setting.training.lr if self.max_lr is None else self.max_lr,
            schedule="cosine",
            cycles=self.cycles,
            warmup=0.0,
            patience=None,
            keep="last",
        )
        run = replace(setting.recipe("snapshots", seed=setting.member_seed(0)), training=training)
        members = taken_at(run, [cycle * steps for cycle in range(1, self.cycles + 1)])
        return Members(recipes=members[-(self.keep or self.cycles) :])
