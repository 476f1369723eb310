"""The lazy pool: members come from the store, or are trained under their training's lock on first need."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.base_models.base import Members
from transfuse.base_models.model import BaseModel, BaseModels, Description
from transfuse.base_models.out_of_fold import fold_problems, named_for_fold, num_trainings, out_of_fold_logits
from transfuse.base_models.recipe import Recipe
from transfuse.base_models.store import Entry, Store
from transfuse.base_models.train import checkpoint_key, joint_name, train
from transfuse.data.splits import fingerprint
from transfuse.metrics import scores
from transfuse.models.predict import predict
from transfuse.types import Development, Scores, Split, SplitName

if TYPE_CHECKING:
    from transfuse.training.fit import Fit, FitResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """News of a training, for the tracker: its members, its recipe, its history."""

    members: tuple[BaseModel, ...]
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
        lay_out: the same pool's recipes on other data, for out-of-fold predictions; None where there is no such need.
        seconds: wall clock spent so far on getting members: training, waiting for another job's training, reading.
    """

    name: str
    members: Members
    development: Development
    store: Store
    fit: Fit
    refresh_before: float = 0.0
    on_trained: Callable[[Trained], None] = lambda news: None
    lay_out: Callable[[Development], Members] | None = None
    seconds: float = field(default=0.0, init=False)
    _found: dict[str, _Found] = field(default_factory=dict, init=False)
    _without_fold: dict[str, Pool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.description = Description(
            recipe=self.name,
            members=tuple(recipe.description for recipe in self.members.recipes),
            has_base=self.members.base is not None,
            retrainable=self.lay_out is not None and not any(map(_holds_given, self.members.recipes)),
            build=self.members.recipes[0].build if self.members.recipes else None,
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
        models = {key: item.model for key, item in found.items() if key not in untrained}
        for pool in self._without_fold.values():
            models |= {each.description.key: each for each in pool.used() if each.description.key not in models}
        return tuple(models.values())

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        """Task -> (M, N, C) logits of all members on training or validation data."""
        return self._stacked(split, self.development.split(split), self.development.fingerprint)

    def test_logits(self, test: Split) -> dict[str, Tensor]:
        """The same on the test split; `evaluation` alone has one to give."""
        return self._stacked("test", test, fingerprint(self.development.tasks, test))

    def held_out_logits(self, held: Split) -> dict[str, Tensor]:
        """The same on training examples that no member was trained on."""
        return self._stacked("held_out", held, fingerprint(self.development.tasks, held))

    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        """Task -> (M, N, C) logits on the training split, of members trained without the example's fold."""
        num_folds, trainings, before = len(set(folds_N.tolist())), num_trainings(self.members), self._fold_seconds()
        log.info(
            "Out-of-fold predictions: %d folds x %d = %d trainings of base models, each without a part of the data; "
            "what is in the store is not trained again.",
            *(num_folds, trainings, num_folds * trainings),
        )
        logits = out_of_fold_logits(self.development, folds_N, self._pool_on)
        self.seconds += self._fold_seconds() - before
        return logits

    def fold_pools(self, folds_N: Tensor) -> tuple[Pool, ...]:
        """The pools that were trained without a fold, in the folds' order."""
        before = self._fold_seconds()
        pools = tuple(self._pool_on(rest, fold) for fold, rest in fold_problems(self.development, folds_N))
        for pool in pools:
            list(pool)  # every member is asked for
        self.seconds += self._fold_seconds() - before
        return pools

    def statistics(self, purpose: str, measure: Callable[[BaseModel], Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """What `measure` finds in every member, from the store where it was measured for this purpose on these data."""
        return [self._statistics(self._entry(index), purpose, measure) for index in range(len(self))]

    def _pool_on(self, development: Development, fold: int) -> Pool:
        assert self.lay_out is not None, "asked for only where `description.retrainable`"
        if development.fingerprint not in self._without_fold:
            members = named_for_fold(self.lay_out(development), fold)
            self._without_fold[development.fingerprint] = replace(self, members=members, development=development)
        return self._without_fold[development.fingerprint]

    def _fold_seconds(self) -> float:
        return sum(pool.seconds for pool in self._without_fold.values())

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

    def _statistics(
        self, found: _Found, purpose: str, measure: Callable[[BaseModel], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        key, data, weights = found.model.description.key, self.development.fingerprint, found.weights
        stored = self.store.get_statistics(key, data, purpose, weights=weights)
        if stored is None:
            stored = dict(measure(found.model))
            self.store.put_statistics(key, data, purpose, stored, weights=weights)
        return stored

    def _found_now(self, recipe: Recipe) -> _Found:
        if recipe.key not in self._found:
            began, within = time.perf_counter(), self.seconds
            self._found |= self._resolve(self._group(recipe))
            self.seconds = within + time.perf_counter() - began  # a start trained on the way is counted once
        return self._found[recipe.key]

    def _entry(self, index: int) -> _Found:
        recipes = self.members.recipes
        new = recipes[index].key not in self._found
        found = self._found_now(recipes[index])
        if new and all(recipe.key in self._found for recipe in recipes):
            self._announce()
        return found

    def _group(self, recipe: Recipe) -> list[Recipe]:
        """The recipes that can share a training with `recipe`, in the pool's order."""
        if recipe.step is None and recipe.train == "one_by_one":
            return [recipe]
        shares = [each for each in self.members.recipes if each.training_key == recipe.training_key]
        return list({each.key: each for each in shares}.values())

    def _resolve(self, group: list[Recipe]) -> dict[str, _Found]:
        """All from the store; else what is missing is trained, while other jobs that need the same training wait."""
        found = self._stored(group, self.store.get)
        if len(found) == len(group):
            return found
        with self.store.lock(group[0].training_key):
            found = self._stored(group, self.store.get_or_set_aside)
            missing = [recipe for recipe in group if recipe.key not in found]
            if missing and group[0].training is None:
                found |= self._given(group[0])
            elif missing:
                found |= self._train(missing)
        return {recipe.key: found[recipe.key] for recipe in group}

    def _stored(self, group: list[Recipe], get: Callable[[str], Entry | None]) -> dict[str, _Found]:
        """What is there; of steps along one training nothing unless all are: it was not written whole."""
        entries = [(recipe, get(recipe.key)) for recipe in group]
        there = [(recipe, entry) for recipe, entry in entries if entry is not None and self._is_current(entry)]
        if len(there) < len(group) and group[0].step is not None:
            return {}
        return {recipe.key: self._as_found(recipe, entry, trained_here=False) for recipe, entry in there}

    def _is_current(self, entry: Entry) -> bool:
        return float(entry.record["created"]) >= self.refresh_before

    def _as_found(self, recipe: Recipe, entry: Entry, *, trained_here: bool) -> _Found:
        model = BaseModel(
            description=recipe.description,
            architecture=recipe.architecture,
            state=entry.state,
            build=recipe.build,
            validation=entry.record["validation"],
            seconds=entry.record["seconds"],
            trained_here=trained_here,
            training=recipe.key if recipe.step is None else recipe.training_key,
        )
        found = _Found(model=model, weights=entry.record["sha256"])
        if recipe.content is None:
            return found
        # given weights have one entry, whatever data they meet: their scores are those on this run's data
        development = self.development
        outputs = self._predictions(found, "validation", development.validation, development.fingerprint)
        return replace(found, model=replace(model, validation=_scored(development, outputs)))

    def _train(self, group: list[Recipe]) -> dict[str, _Found]:
        """One training, and the members that come from it, written together."""
        recipe = replace(group[0], step=None, name=joint_name(group))
        log.info("Training base model %s ...", recipe.name)
        networks, result = train(self.fit, group, self._start)
        # members of separate steps of one training share its seconds; those of one step each have their part
        seconds = result.seconds / len(group) if recipe.train == "together" else result.seconds
        entries = self._put(group, networks, seconds)
        self.fit.checkpoints.remove(checkpoint_key(group))
        found = {each.key: self._as_found(each, entries[each.key], trained_here=True) for each in group}
        members = tuple(item.model for item in found.values())
        self.on_trained(Trained(members=members, recipe=recipe, result=result))
        return found

    def _given(self, recipe: Recipe) -> dict[str, _Found]:
        """Weights that need no training: a user's checkpoint, or a fresh initialization."""
        network = recipe.build()
        if recipe.state is not None:
            network.load_state_dict(recipe.state)
        entry = self._put([recipe], [network], seconds=0.0)[recipe.key]
        return {recipe.key: self._as_found(recipe, entry, trained_here=False)}

    def _start(self, recipe: Recipe) -> nn.Module:
        """A fresh network, or one with the start's weights: backbone and the heads that both have."""
        network = recipe.build()
        if recipe.start is not None:
            start = self._found_now(recipe.start).model.state
            network.load_state_dict({key: start.get(key, own) for key, own in network.state_dict().items()})
        return network

    def _put(self, group: list[Recipe], networks: list[nn.Module], seconds: float) -> dict[str, Entry]:
        entries = {}
        for recipe, network in zip(group, networks, strict=True):
            outputs = predict(network, recipe.development.validation.inputs)
            record = {
                "name": recipe.name,
                "recipe": recipe.canonical(),
                "validation": _scored(recipe.development, outputs),
                "seconds": seconds,
            }
            entries[recipe.key] = Entry(state=network.state_dict(), record=record)
        return self.store.put_all(entries)

    def _announce(self) -> None:
        members = [self._found[recipe.key].model for recipe in self.members.recipes]
        trained = sum(member.trained_here for member in members)
        lines = [f"base models: {trained} trained, {len(members) - trained} reused"]
        lines += [f"  {member.description.name}: {_readable(member.validation)}" for member in members]
        log.info("\n".join(lines))


def _holds_given(recipe: Recipe) -> bool:
    """Whether its weights, or those that it starts from, are given: who knows what data they have seen."""
    return recipe.content is not None or (recipe.start is not None and _holds_given(recipe.start))


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
