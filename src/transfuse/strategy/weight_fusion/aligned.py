"""`align=*`: any weight fusion of models whose units were matched first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from transfuse.alignment import Matcher, Pair, Specification, squared_distance
from transfuse.base_models.model import BaseModel, Description
from transfuse.metrics import higher_is_better, mean_over_tasks, metric_of
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel, Strategy
from transfuse.strategy.weight_fusion.barrier import paths
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.parts import take_apart
from transfuse.strategy.weight_fusion.permuted import PermutedModels, check_held, specifications
from transfuse.strategy.weight_fusion.requirements import ModelCountError
from transfuse.training.settings import Training
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, ProblemKind


@dataclass(frozen=True, kw_only=True)
class Aligned(Strategy):
    """A weight fusion of permuted models: each is matched with the reference, which stays as it is.

    The reference is what all members started from, where the method uses it; else the best member by validation.
    Permuting units changes no function, so the members' predictions and scores stay.

    Attributes:
        inner: fuses the permuted models.
        matcher: finds the permutations.

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2209.04836.
    """

    family: ClassVar[str] = "weight_fusion"
    problems: ClassVar[frozenset[ProblemKind]] = WeightFusion.problems

    inner: WeightFusion
    matcher: Matcher

    @property
    def name(self) -> str:
        """The inner one's."""
        return self.inner.name

    def check(self, development: Development, base_models: Description) -> None:
        """What the inner strategy asks, and what aligning its models does."""
        self.inner.check(development, base_models)
        named = f"align={self.matcher.name}"
        if not self.inner.align_models:
            raise IncompatibleStrategyError(
                f"{self.name} aligns its models itself, or has none. Found {named}. Did you mean align=none?"
            )
        if self.matcher.most is not None and len(base_models) > self.matcher.most:
            raise ModelCountError(
                f"{named} is for at most {self.matcher.most} models. Found {len(base_models)}. "
                f"Did you mean align=weight_matching, or base_models.count={self.matcher.most}?"
            )
        if self.inner.batch_norm != "reestimate":
            raise HyperparameterError(
                f"`batch_norm` should be reestimate where models are aligned: the statistics of a mixture are none of "
                f"theirs. Found `batch_norm = {self.inner.batch_norm}`."
            )
        try:
            check_held(development, base_models, self.matcher.spec)
        except HyperparameterError as error:  # the group `align` has a key of its own, outside of the strategy's
            told = str(error).replace("`spec`", "align.spec").replace("`spec = ", "`align.spec=")
            raise HyperparameterError(told) from error

    def apply(self, context: Context) -> FusedModel:
        """Permutes the members, fuses them, and says what was moved."""
        found = _align(context, self.matcher, with_base=self.inner.uses_base)
        fused = self.inner.apply(replace(context, base_models=found.models))
        return replace(
            fused,
            diagnostics={**fused.diagnostics, "align": {"matcher": self.matcher.name, **found.diagnostics}},
            looks=fused.looks + found.looks,
            steps=fused.steps + found.steps,
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The permuted pool, and what finding it took."""

    models: PermutedModels
    diagnostics: Mapping[str, Any]
    looks: int
    steps: int


def _align(context: Context, matcher: Matcher, *, with_base: bool) -> _Found:
    members = tuple(context.base_models)
    base = context.base_models.base if with_base else None
    best = None if base is not None else best_index(context, members)
    reference = base if base is not None else members[best or 0]
    barrier = paths(context, take_apart(context, with_base=False))
    specs = specifications(context, matcher.spec)
    trainer = _Trainer(context)
    states: list[Mapping[str, Tensor]] = []
    moved = []
    for index, (member, specification) in enumerate(zip(members, specs, strict=True)):
        if index == best:
            states.append(member.state)
            continue
        pair = Pair(
            specification=specification,
            reference=reference.network(),
            other=member.network(),
            inputs=context.development.train.inputs,
            generator=context.generator(f"align/{index}"),
            train=trainer,
        )
        states.append(specification.apply(member.state, matcher.match(pair)))
        before, after = (squared_distance(reference.state, state) for state in (member.state, states[-1]))
        moved.append({"name": member.description.name, "squared_distance_before": before, "squared_distance": after})
    return _Found(
        models=PermutedModels(context.base_models, states),
        diagnostics={
            "reference": reference.description.name,
            "members": moved,
            **described(specs),
            "barrier_before": [{"models": row["models"], "barrier": row["barrier"]} for row in map(_row, barrier)],
        },
        looks=len(members) if best is not None and len(members) > 1 else 0,
        steps=trainer.steps,
    )


def _row(path: Any) -> dict[str, Any]:
    row: dict[str, Any] = path.row()
    return row


def described(specs: list[Specification]) -> dict[str, Any]:
    """What was permuted and what was held, for the record."""
    symbols = {name: symbol.size for specification in specs for name, symbol in specification.symbols.items()}
    return {"symbols": symbols, "fixed": list(dict.fromkeys(line for each in specs for line in each.fixed))}


def best_index(context: Context, members: tuple[BaseModel, ...]) -> int:
    """The member with the best validation score; the first where they cannot be compared, or of equals."""
    tasks, metric = context.development.tasks, context.selection_metric
    comparable = [
        index
        for index, member in enumerate(members)
        if member.description.trained_on == "target"
        and all(metric_of(task, metric) in member.validation.get(task.name, {}) for task in tasks)
    ]
    if not comparable:
        return 0
    sign = 1.0 if higher_is_better(metric) else -1.0
    return max(comparable, key=lambda index: sign * mean_over_tasks(tasks, members[index].validation, metric))


class _Trainer:
    """Trains with the run's trainer, and counts the steps."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.steps = 0

    def __call__(self, network: nn.Module, *, epochs: int, lr: float) -> nn.Module:
        """The network with its best weights by validation."""
        from transfuse.training import BaseModule

        context = self._context
        settings = Training(epochs=epochs, batch_size=context.training.batch_size, lr=lr)
        done = context.fit(
            BaseModule(network, context.development.tasks, settings),
            context.development.train,
            context.development.validation,
            settings=settings,
            seed=derive_seed(context.seed, "align"),
            name="align=straight_through",
        )
        self.steps += done.steps
        return done.network
