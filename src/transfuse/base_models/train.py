"""The trainings that recipes describe. Lightning is imported when something is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.recipe import Recipe

if TYPE_CHECKING:
    from transfuse.training.fit import Fit, FitResult, Fitting
    from transfuse.training.module import TrainingModule


def train(fit: Fit, group: Sequence[Recipe], start: Callable[[Recipe], nn.Module]) -> tuple[list[nn.Module], FitResult]:
    """One training, and the network of each recipe.

    Args:
        fit: trains.
        group: one recipe; several of one training that differ in `step`; or several that train together.
        start: makes the network that a recipe's training starts from.
    """
    if group[0].train == "together":
        return _together(fit, group, start)
    if group[0].step is None:
        return _to_the_end(fit, group[0], start)
    return _in_steps(fit, group, start)


def joint_name(group: Sequence[Recipe]) -> str:
    """What the training of a group is called."""
    return group[0].name if len(group) == 1 else f"{group[0].name} to {group[-1].name}"


def checkpoint_key(group: Sequence[Recipe]) -> str:
    """What the checkpoints of a group's training are called; members of one step depend on who is among them."""
    if group[0].train == "one_by_one":
        return group[0].training_key
    return hashlib.sha256("".join(recipe.key for recipe in group).encode()).hexdigest()


def _to_the_end(fit: Fit, recipe: Recipe, start: Callable[[Recipe], nn.Module]) -> tuple[list[nn.Module], FitResult]:
    """The weights that `training.keep` chooses."""
    fitting = _begin(fit, [recipe], _alone(recipe, start))
    fitting.advance(fitting.total_steps)
    result = fitting.result()
    return [result.network], result


def _in_steps(
    fit: Fit, group: Sequence[Recipe], start: Callable[[Recipe], nn.Module]
) -> tuple[list[nn.Module], FitResult]:
    """The weights at each recipe's step."""
    fitting = _begin(fit, group, _alone(group[0], start))
    networks: dict[str, nn.Module] = {}
    for recipe in sorted(group, key=lambda each: each.step or 0):
        assert recipe.step is not None and fitting.step < recipe.step <= fitting.total_steps
        fitting.advance(recipe.step)
        networks[recipe.key] = fitting.snapshot()
    return [networks[recipe.key] for recipe in group], fitting.result()


def _together(
    fit: Fit, group: Sequence[Recipe], start: Callable[[Recipe], nn.Module]
) -> tuple[list[nn.Module], FitResult]:
    """Each member's weights that `training.keep` chooses."""
    from transfuse.training.stacked import Stacked
    from transfuse.training.together import TogetherModule

    first, networks = group[0], [start(recipe) for recipe in group]
    assert first.training is not None
    seeds = [recipe.seed for recipe in group]
    fitting = _begin(fit, group, TogetherModule(networks, first.development.tasks, first.training, seeds))
    fitting.advance(fitting.total_steps)
    result = fitting.result()
    assert isinstance(result.network, Stacked)
    for index, network in enumerate(networks):
        network.load_state_dict(result.network.member_state(index))
        network.eval()
    return networks, result


def _alone(recipe: Recipe, start: Callable[[Recipe], nn.Module]) -> TrainingModule:
    from transfuse.training.base import BaseModule

    assert recipe.training is not None
    return BaseModule(start(recipe), recipe.development.tasks, recipe.training)


def _begin(fit: Fit, group: Sequence[Recipe], module: TrainingModule) -> Fitting:
    development = group[0].development
    return fit.begin(
        module,
        development.train,
        development.validation,
        settings=module.settings,
        seed=group[0].seed,
        name=f"base model {joint_name(group)}",
        key=checkpoint_key(group),
    )
