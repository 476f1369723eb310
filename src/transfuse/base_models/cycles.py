"""What pools whose members come from one training have in common: how long a cycle is, which weights are members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transfuse.base_models.base import Setting
from transfuse.base_models.recipe import Recipe
from transfuse.types import HyperparameterError


def taken_at(run: Recipe, steps: Sequence[int]) -> tuple[Recipe, ...]:
    """One recipe a step of one training: `<name>-0`, `<name>-1`, ...; the step decides the key."""
    return tuple(replace(run, name=f"{run.name}-{index}", step=step) for index, step in enumerate(steps))


def cycle_steps(setting: Setting, cycles: int, epochs_per_cycle: int | None) -> int:
    """Optimizer steps of a cycle.

    Args:
        setting: of the run.
        cycles: how many share the training budget.
        epochs_per_cycle: passes over the training split; None for `1 / cycles` of the training budget, rounded down.

    Raises:
        HyperparameterError: the budget has fewer steps than cycles.
    """
    budget = setting.budget()
    if epochs_per_cycle is not None:
        return epochs_per_cycle * budget.epoch_steps
    if budget.total_steps < cycles:
        raise HyperparameterError(
            f"`cycles` should be at most the number of optimizer steps ({budget.total_steps}). "
            f"Found `cycles = {cycles}`."
        )
    return budget.total_steps // cycles


def require_cycles(cycles: int, epochs_per_cycle: int | None) -> None:
    """Raises unless there is at least one cycle, and an epoch in it."""
    if cycles < 1:
        raise HyperparameterError(f"`cycles` should be >= 1. Found `cycles = {cycles}`.")
    if epochs_per_cycle is not None and epochs_per_cycle < 1:
        raise HyperparameterError(f"`epochs_per_cycle` should be >= 1. Found `epochs_per_cycle = {epochs_per_cycle}`.")
