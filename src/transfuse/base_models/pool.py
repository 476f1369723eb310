"""The lazy pool: members come from the store, or are trained under their key's lock on first need."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.base_models.base import Members
from transfuse.base_models.model import BaseModel, BaseModels, Description
from transfuse.base_models.recipe import Recipe
from transfuse.base_models.store import Entry, Store
from transfuse.data.splits import fingerprint
from transfuse.metrics import scores
from transfuse.models.loading import load_strict
from transfuse.models.predict import predict
from transfuse.models.state_files import read_state
from transfuse.types import Development, Scores, Split, SplitName

if TYPE_CHECKING:
    from transfuse.training.fit import Fit, FitResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """News of a training, for the tracker: the member, its recipe, its history."""

    member: BaseModel
    recipe: Recipe
    result: FitResult


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A member that is there, and the checksum of its weights that its predictions are tied to."""

    model: BaseModel
    weights: str


@dataclass(kw_only=True)
class Pool(BaseModels):
    """The base models of one run.

    Attributes:
        name: of the recipe, such as `seeds`.
        members: their recipes.
        development: the problem that their predictions are made on.
        store: where they are kept.
        fit: trains.
        refresh_before: stored members older than this time (seconds since the epoch) are trained anew.
        on_trained: called after each training.
        seconds: wall clock spent so far on getting members: training, waiting for another job's training, reading.
    """

    name: str
    members: Members
    development: Development
    store: Store
    fit: Fit
    refresh_before: float = 0.0
    on_trained: Callable[[Trained], None] = lambda news: None
    seconds: float = field(default=0.0, init=False)
    _found: dict[str, _Found] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.description = Description(
            recipe=self.name,
            members=tuple(recipe.description for recipe in self.members.recipes),
            has_base=self.members.base is not None,
        )
        if len({recipe.key for recipe in self.members.recipes}) < len(self.members.recipes):
            log.warning("Some base models are the same; weights that fuse them are not identifiable.")

    def __getitem__(self, index: int) -> BaseModel:
        """Member `index`; the pool is announced when its last member is there."""
        return self._entry(index).model

    @property
    def base(self) -> BaseModel | None:
        """The weights that all members started from."""
        return None if self.members.base is None else self._found_now(self.members.base).model

    def used(self) -> tuple[BaseModel, ...]:
        """The trained (or given) models that were asked for so far, starts included; no fresh initialization."""
        found, base = dict(self._found), self.members.base
        # members that were read from the store started from the base all the same
        if found and base is not None and base.key not in found:
            entry = self.store.get(base.key)
            found |= {} if entry is None else {base.key: self._as_found(base, entry, trained_here=False)}
        recipes = [*self.members.recipes, *([base] if base else [])]
        untrained = {recipe.key for recipe in recipes if recipe.training is None and recipe.content is None}
        return tuple(item.model for key, item in found.items() if key not in untrained)

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        """Task -> (M, N, C) logits of all members on training or validation data."""
        return self._stacked(split, self.development.split(split), self.development.fingerprint)

    def test_logits(self, test: Split) -> dict[str, Tensor]:
        """The same on the test split; `evaluation` alone has one to give."""
        return self._stacked("test", test, fingerprint(self.development.tasks, test))

    def _stacked(self, name: str, split: Split, data: str) -> dict[str, Tensor]:
        self.description.require_tasks(self.development, "A stack of predictions")
        outputs = [self._predictions(self._entry(index), name, split, data) for index in range(len(self))]
        return {task.name: torch.stack([output[task.name] for output in outputs]) for task in self.development.tasks}

    def _predictions(self, found: _Found, name: str, split: Split, data: str) -> dict[str, Tensor]:
        key, weights = found.model.description.key, found.weights
        stored = self.store.get_predictions(key, data, name, weights=weights, ids=split.ids)
        if stored is None:
            stored = predict(found.model.network(), split.inputs)
            self.store.put_predictions(key, data, name, stored, weights=weights, ids=split.ids)
        return stored

    def _found_now(self, recipe: Recipe) -> _Found:
        if recipe.key not in self._found:
            began, within = time.perf_counter(), self.seconds
            self._found[recipe.key] = self._resolve(recipe)
            self.seconds = within + time.perf_counter() - began  # a start trained on the way is counted once
        return self._found[recipe.key]

    def _entry(self, index: int) -> _Found:
        recipes = self.members.recipes
        new = recipes[index].key not in self._found
        found = self._found_now(recipes[index])
        if new and all(recipe.key in self._found for recipe in recipes):
            self._announce()
        return found

    def _resolve(self, recipe: Recipe) -> _Found:
        """From the store; else trained, while other jobs that need the same key wait."""
        entry = self._current(self.store.get(recipe.key))
        if entry is not None:
            return self._as_found(recipe, entry, trained_here=False)
        with self.store.lock(recipe.key):
            entry = self._current(self.store.get_or_set_aside(recipe.key))
            if entry is not None:
                return self._as_found(recipe, entry, trained_here=False)
            if recipe.training is None:
                return self._given(recipe)
            return self._train(recipe)

    def _current(self, entry: Entry | None) -> Entry | None:
        return None if entry is None or entry.record["created"] < self.refresh_before else entry

    def _as_found(self, recipe: Recipe, entry: Entry, *, trained_here: bool) -> _Found:
        model = BaseModel(
            description=recipe.description,
            architecture=recipe.architecture,
            state=entry.state,
            build=recipe.build,
            validation=entry.record["validation"],
            seconds=entry.record["seconds"],
            trained_here=trained_here,
        )
        found = _Found(model=model, weights=entry.record["sha256"])
        if recipe.content is None:
            return found
        # given weights have one entry, whatever data they meet: their scores are those on this run's data
        development = self.development
        outputs = self._predictions(found, "validation", development.validation, development.fingerprint)
        return replace(found, model=replace(model, validation=_scored(development, outputs)))

    def _train(self, recipe: Recipe) -> _Found:
        assert recipe.training is not None
        from transfuse.training.base import BaseModule

        network = self._start(recipe)
        development = recipe.development
        module = BaseModule(network, development.tasks, recipe.training)
        log.info("Training base model %s ...", recipe.name)
        result = self.fit(
            module,
            development.train,
            development.validation,
            settings=recipe.training,
            seed=recipe.seed,
            name=f"base model {recipe.name}",
        )
        entry = self._put(recipe, result.network, result.seconds)
        found = self._as_found(recipe, entry, trained_here=True)
        self.on_trained(Trained(member=found.model, recipe=recipe, result=result))
        return found

    def _given(self, recipe: Recipe) -> _Found:
        """Weights that need no training: a user's checkpoint, or a fresh initialization."""
        network = recipe.build()
        if recipe.path is not None:
            load_strict(network, read_state(Path(recipe.path))[0], source=recipe.path)
        return self._as_found(recipe, self._put(recipe, network, seconds=0.0), trained_here=False)

    def _start(self, recipe: Recipe) -> nn.Module:
        """A fresh network, or one with the start's weights: backbone and the heads that both have."""
        network = recipe.build()
        if recipe.start is not None:
            start = self._found_now(recipe.start).model.state
            network.load_state_dict({key: start.get(key, own) for key, own in network.state_dict().items()})
        return network

    def _put(self, recipe: Recipe, network: nn.Module, seconds: float) -> Entry:
        outputs = predict(network, recipe.development.validation.inputs)
        record = {
            "name": recipe.name,
            "recipe": recipe.canonical(),
            "validation": _scored(recipe.development, outputs),
            "seconds": seconds,
        }
        return self.store.put(recipe.key, network.state_dict(), record)

    def _announce(self) -> None:
        members = [self._found[recipe.key].model for recipe in self.members.recipes]
        trained = sum(member.trained_here for member in members)
        lines = [f"base models: {trained} trained, {len(members) - trained} reused"]
        lines += [f"  {member.description.name}: {_readable(member.validation)}" for member in members]
        log.info("\n".join(lines))


def _scored(development: Development, outputs: Mapping[str, Tensor]) -> dict[str, Scores]:
    """Task -> scores on the validation split."""
    targets = development.validation.targets
    return {task.name: scores(task, outputs[task.name], targets[task.name]) for task in development.tasks}


def _readable(validation: Mapping[str, Scores]) -> str:
    shown = ("accuracy", "nll", "rmse")
    return ", ".join(
        f"{task + ' ' if len(validation) > 1 else ''}{name} {value:.4g}"
        for task, values in validation.items()
        for name, value in values.items()
        if name in shown
    )
