"""The contract of output fusion: members' predictions to one prediction; a method implements `combine` only."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from transfuse.base_models.model import BaseModels, Description
from transfuse.metrics import metric_of, scores
from transfuse.strategy.base import Context, FusedModel, Strategy, require_all_tasks
from transfuse.strategy.cross_fit import cross_fit, folds
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.features import Reads, pool_features
from transfuse.strategy.output_fusion.fold_average import FoldAverage, average_folds
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.predictions import Predictions, check_predictions
from transfuse.strategy.weights.base import ALL_KINDS, WeightRule
from transfuse.types import Development, IncompatibleStrategyError, ProblemKind, SplitName, Task, TaskKind


@dataclass(frozen=True, kw_only=True)
class OutputFusion(Strategy, ABC):
    """A way to fuse predictions. With several tasks each gets a combiner of its own.

    A method implements `combine`, and overrides `fitted`, `kinds` and `instead` where the defaults do not hold.
    """

    family: ClassVar[str] = "output_fusion"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"single_task", "multi_task", "transfer"})

    @abstractmethod
    def combine(self, predictions: Predictions) -> Combiner:
        """A combiner for one task, fitted in float64 on these predictions."""

    @property
    def rule(self) -> WeightRule | None:
        """The rule that weighs the members, where the method takes one: what it needs, the method needs."""
        return None

    @property
    def fitted(self) -> bool:
        """Whether `combine` reads labels; the validation scores are then cross-fitted."""
        return self.rule is not None and self.rule.fitted

    @property
    def fit_on(self) -> Literal["validation", "out_of_fold"]:
        """What `combine` is fitted on: validation data, or training data predicted by members trained without them.

        What members say about their own training examples is near certainty, and never used.
        """
        return "validation"

    @property
    def members(self) -> Literal["refit", "folds"]:
        """Whose predictions are fused after an out-of-fold fit.

        The base models' trained on all training data (`refit`), or the averages of each one's fold models (`folds`);
        nothing is then trained on all training data.
        """
        return "refit"

    @property
    def takes_variances(self) -> bool:
        """Whether the method fuses variances that regression members predict: its combiner is a `GaussianCombiner`."""
        return False

    @property
    def reads(self) -> Reads:
        """What combiners read of an example besides the members' outputs; `outputs` for nothing."""
        return "outputs"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that the method fuses."""
        return ALL_KINDS if self.rule is None else self.rule.kinds

    @property
    def instead(self) -> str:
        """What to use for tasks of other kinds, as typed on the command line."""
        return "strategy=output_fusion/average" if self.rule is None else self.rule.instead

    def check(self, development: Development, base_models: Description) -> None:
        """Members must predict every task, kinds must fit, and a fitted method needs validation labels."""
        super().check(development, base_models)
        if base_models.members and all(member.trained_on == "source" for member in base_models.members):
            raise IncompatibleStrategyError(
                f"{self.name} fuses predictions for the target data. Found base models of the source data only "
                f"(base_models={base_models.recipe}). Did you mean base_models=source_and_target?"
            )
        require_all_tasks(self, development, base_models)
        several = sorted({task.kind for task in development.tasks})
        if len(several) > 1 and not self.kinds.issuperset(several):
            method = "super_learner" if self.fitted else "average"
            raise IncompatibleStrategyError(
                f"{self.name} with these settings is for {' and '.join(sorted(self.kinds))}. Found tasks of the kinds "
                f"{', '.join(several)}. Did you mean output_fusion/{method}, which fits them all?"
            )
        if self.rule is not None:
            self.rule.check_count(len(base_models))
        for task in development.tasks:
            self.check_kind(task.kind)
            self._check_fit_data(development, base_models, task)

    def _check_fit_data(self, development: Development, base_models: Description, task: Task) -> None:
        if not self.fitted:
            return
        if self.fit_on == "validation" and not _has_labels(development.validation.targets[task.name]):
            raise IncompatibleStrategyError(
                f"{self.name} needs validation labels. Found none for task {task.name}. "
                f"Set data.validation_fraction > 0, or use output_fusion/average."
            )
        if self.fit_on == "out_of_fold" and not base_models.retrainable:
            raise IncompatibleStrategyError(
                f"{self.name} with fit_on=out_of_fold trains the base models on parts of the training data. "
                f"Found base_models={base_models.recipe}, whose weights are given. Did you mean fit_on=validation?"
            )

    def check_kind(self, kind: TaskKind) -> None:
        """Raises `IncompatibleStrategyError` unless the method fuses tasks of this kind."""
        if kind not in self.kinds:
            raise IncompatibleStrategyError(
                f"{self.name} with these settings is for {' and '.join(sorted(self.kinds))}. Found {kind}. "
                f"Did you mean {self.instead}?"
            )

    def apply(self, context: Context) -> FusedModel:
        """One combiner a task from the members' stored predictions; validation scores are honest."""
        out_of_fold = self.fitted and self.fit_on == "out_of_fold"
        pools: Sequence[BaseModels] = (context.base_models,)
        if self.members == "folds":
            pools = context.base_models.fold_pools(_folds(context))
        judged = self._predictions(context, _averaged_logits(context, pools), "validation")
        fitting = judged
        if out_of_fold:
            fitting = self._predictions(context, context.base_models.out_of_fold_logits(_folds(context)), "train")
        combiners = {name: self.combine(predictions).eval() for name, predictions in fitting.items()}
        validation, fit = {}, {}
        for task in context.development.tasks:
            combiner, seen, held = combiners[task.name], fitting[task.name], judged[task.name]
            if self.fitted:
                fit[task.name] = scores(task, fused_outputs(combiner, seen), seen.truth)
            in_sample = self.fitted and not out_of_fold
            honest_NC = self._cross_fitted(held, task, context) if in_sample else fused_outputs(combiner, held)
            validation[task.name] = scores(task, honest_NC, held.truth)
        looks = 1 if self.fitted and not out_of_fold else 0
        return fused_model(context, combiners, pools=pools, validation=validation, fit=fit, looks=looks)

    def _predictions(self, context: Context, logits: Mapping[str, Tensor], split: SplitName) -> dict[str, Predictions]:
        """What the members said about each task of a split, checked, with all that a combiner may use."""
        data = context.development.split(split)
        features_NF = pool_features(self.reads, data.inputs, context.base_models)
        found = {}
        for task in context.development.tasks:
            targets = data.targets[task.name]
            check_predictions(logits[task.name], targets, task.kind, split=split, ids=data.ids.tolist())
            found[task.name] = Predictions(
                logits_MNC=logits[task.name],
                kind=task.kind,
                labels=targets,
                features_NF=features_NF,
                task=task,
                metric=metric_of(task, context.selection_metric),
                generator=context.generator(f"{self.name}/{task.name}"),
                fit=context.fit,
            )
        return found

    def _cross_fitted(self, predictions: Predictions, task: Task, context: Context) -> Tensor:
        """(N, C) outputs, each from a combiner that did not see the example's label."""

        def fit_and_predict(rest: Tensor, held: Tensor, fold: int) -> Tensor:
            generator = context.generator(f"{self.name}/{task.name}/fold{fold}")
            combiner = self.combine(predictions.at(rest, generator)).eval()
            return fused_outputs(combiner, predictions.at(held, generator))

        labels = predictions.truth
        folds_N = folds(labels, len(labels), context.cross_fit, context.generator("cross_fit"))
        return cross_fit(fit_and_predict, folds_N)


def fused_model(
    context: Context,
    combiners: Mapping[str, Combiner],
    *,
    pools: Sequence[BaseModels],
    validation: Mapping[str, dict[str, float]],
    fit: Mapping[str, dict[str, float]],
    looks: int,
) -> FusedModel:
    """The fused model of one combiner a task; members that no task listens to are left out of its network.

    A member is the network of the only one of `pools`, or the average of one network of each.
    """
    num_members, num_pools = len(context.base_models), len(pools)
    dropped = frozenset.intersection(*(combiner.unused for combiner in combiners.values()))
    kept = tuple(index for index in range(num_members) if index not in dropped)
    network = Fused(
        [pool[index].network() for index in kept for pool in pools],
        {
            name: copy.deepcopy(combiner)
            if num_pools == 1
            else FoldAverage(copy.deepcopy(combiner), num_folds=num_pools)
            for name, combiner in combiners.items()
        },
        kept=[index * num_pools + place for index in kept for place in range(num_pools)],
        num_members=num_members * num_pools,
    )
    from_stored = num_pools == 1 and all(combiner.reads == "outputs" for combiner in combiners.values())
    return FusedModel(
        network=network.eval(),
        validation=validation,
        fit=fit,
        members=kept,
        combiners=combiners if from_stored else None,
        weights={
            name: None if combiner.weights is None else combiner.weights.tolist()
            for name, combiner in combiners.items()
        },
        diagnostics={**_diagnostics(combiners), "fusion/dropped": sorted(dropped), **_repeated(context)},
        looks=looks,
    )


def _repeated(context: Context) -> dict[str, str]:
    """A sentence where a base model is a member more than once."""
    members = context.base_models.description.members
    keys = [member.key for member in members]
    names = [member.name for member in members if keys.count(member.key) > 1]
    if not names:
        return {}
    return {"fusion/warning": f"Members {', '.join(names)} are not all different: their weights are not identifiable."}


def _diagnostics(combiners: Mapping[str, Combiner]) -> dict[str, Any]:
    """`fusion/<what>`; with several tasks `fusion/<task>/<what>`."""
    several = len(combiners) > 1
    return {
        f"fusion/{task}/{name.removeprefix('fusion/')}" if several else name: value
        for task, combiner in combiners.items()
        for name, value in combiner.diagnostics.items()
    }


@torch.no_grad()
def fused_outputs(combiner: Combiner, predictions: Predictions) -> Tensor:
    """(N, C): what the combiner makes of these predictions."""
    fused_NC: Tensor = combiner(predictions.logits_MNC, predictions.features_NF)
    return fused_NC


def _folds(context: Context) -> Tensor:
    """(N,) the training examples' folds for out-of-fold predictions."""
    train, tasks = context.development.train, context.development.tasks
    strata_N = train.targets[tasks[0].name] if len(tasks) == 1 else None
    return folds(strata_N, len(train), context.cross_fit, context.generator("out_of_fold"))


def _averaged_logits(context: Context, pools: Sequence[BaseModels]) -> dict[str, Tensor]:
    """Task -> (M, N, C) validation outputs of the only pool's members, or averages over the pools."""
    found = [pool.logits("validation") for pool in pools]
    if len(found) == 1:
        return found[0]
    return {
        task.name: average_folds(torch.stack([logits[task.name] for logits in found], dim=1), task.kind)
        for task in context.development.tasks
    }


def _has_labels(targets: Tensor) -> bool:
    labelled = ~targets.isnan() if targets.is_floating_point() else targets >= 0
    return bool(labelled.any())
