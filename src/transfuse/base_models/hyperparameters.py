"""`base_models=hyperparameters`: members with different training settings (Wenzel et al. 2020, 2006.13570)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count
from transfuse.base_models.interval import Interval, read_interval
from transfuse.base_models.recipe import Recipe
from transfuse.conformity import conforms, floated, hints, readable, under
from transfuse.randomness import make_generator
from transfuse.suggest import nearest
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError

_DEFAULT: Mapping[str, tuple[Any, ...]] = {"lr": (1e-3, 3e-4), "weight_decay": (0.0, 1e-4)}
_FIELDS = tuple(field.name for field in fields(Training))
_TYPES = hints(Training)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseModelRecipe):
    """Members that differ in initialization, batch order and settings of the `training` group.

    Settings come from a grid, from a random draw, or from both. A member's key holds the settings that it got, not
    where they came from, so grids that share points share members.

    Attributes:
        choices: training field -> values. The grid of all combinations is taken in order (the last field varies
            quickest), and again from its start where `count` is larger. None without a `space`: lr 1e-3 and 3e-4, each
            with weight_decay 0 and 1e-4.
        space: training field -> `{low, high, log}`: a number in [low, high], uniform or (log) uniform in its logarithm,
            drawn for each member; whole numbers are rounded.
        count: number of members, >= 1; None for the size of the grid. A pool of 3 is a prefix of the pool of 5.
    """

    choices: Mapping[str, tuple[Any, ...]] | None = None
    space: Mapping[str, Mapping[str, Any]] | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            require_count(self.count)
        for name, values in self._choices().items():
            _check_choices(name, values)
        for name, spec in (self.space or {}).items():
            _check_space(name, spec)
            if name in self._choices():
                raise HyperparameterError(f"`space.{name}` is in `choices` too. It should be in one of them.")
        names = {*self._choices(), *(self.space or {})}
        if {"epochs", "steps"} <= names:
            raise HyperparameterError("`choices` and `space` should not name both epochs and steps. Found both.")
        if self.space and not self.choices and self.count is None:
            raise HyperparameterError("`count` should be set where settings are drawn at random. Found `count = None`.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a combination."""
        grid = [dict(zip(self._choices(), values, strict=True)) for values in product(*self._choices().values())]
        count = self.count or len(grid)
        return Members(recipes=tuple(self._member(setting, grid[index % len(grid)], index) for index in range(count)))

    def _choices(self) -> Mapping[str, tuple[Any, ...]]:
        return (_DEFAULT if not self.space else {}) if self.choices is None else self.choices

    def _member(self, setting: Setting, chosen: Mapping[str, Any], index: int) -> Recipe:
        seed = setting.member_seed(index)
        drawn = {
            name: read_interval(spec).draw(make_generator(seed, "space", name), whole=_is_whole(name))
            for name, spec in (self.space or {}).items()
        }
        training = _with(setting.training, {**chosen, **drawn})
        if training.batch_size % setting.world_size:
            raise HyperparameterError(
                f"`base_models.choices.batch_size` should be a multiple of the number of devices "
                f"({setting.world_size}). Found `base_models.choices.batch_size = {training.batch_size}`."
            )
        return replace(setting.recipe(f"hyperparameters-{index}", seed=seed), training=training)


def _with(training: Training, settings: Mapping[str, Any]) -> Training:
    """The training with some fields changed; of epochs and steps the one that is set replaces the other."""
    typed = {name: floated(value, _TYPES[name]) for name, value in settings.items()}
    budget = {"epochs", "steps"} & typed.keys()
    other = {"epochs": None, "steps": None} if budget else {}
    return replace(training, **(other | typed))


def _check_name(group: str, name: str) -> None:
    if name not in _FIELDS:
        raise HyperparameterError(f"`{group}.{name}` is no field of the training group.{nearest(name, _FIELDS)}")


def _check_choices(name: str, values: Any) -> None:
    _check_name("choices", name)
    if not isinstance(values, (list, tuple)) or not values:
        raise HyperparameterError(
            f"`choices.{name}` should be a list of at least one value. Found `choices.{name} = {values!r}`."
        )
    for value in values:
        if not conforms(value, _TYPES[name]):
            raise HyperparameterError(
                f"`choices.{name}` should hold {readable(_TYPES[name])} each. Found `choices.{name} = {value!r}`."
            )
        _check_value("choices", name, value)


def _check_space(name: str, spec: Any) -> None:
    _check_name("space", name)
    if not conforms(1, _TYPES[name]):
        raise HyperparameterError(f"`space.{name}` is no number. Its values belong into `choices`.")
    with under(f"space.{name}"):
        interval: Interval = read_interval(spec)
    for bound in (interval.low, interval.high):
        _check_value("space", name, round(bound) if _is_whole(name) else bound)


def _check_value(group: str, name: str, value: Any) -> None:
    """Raises where the training group refuses the value."""
    with under(group):
        _with(Training(), {name: value})


def _is_whole(name: str) -> bool:
    return not conforms(0.5, _TYPES[name])
