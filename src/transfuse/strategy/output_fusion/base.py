"""The contract of output fusion: members' predictions to one prediction; a method implements `combine` only."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.metrics import metric_of, scores
from transfuse.strategy.base import Context, FusedModel, Strategy, require_all_tasks
from transfuse.strategy.cross_fit import cross_fit, folds
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.features import Reads, pool_features
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.predictions import Predictions, check_predictions
from transfuse.types import Development, IncompatibleStrategyError, ProblemKind, Split, Task, TaskKind


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
    def fitted(self) -> bool:
        """Whether `combine` reads labels; the validation scores are then cross-fitted."""
        return False

    @property
    def fit_on(self) -> Literal["validation", "out_of_fold"]:
        """What `combine` is fitted on: validation data, or training data predicted by members trained without them.

        What members say about their own training examples is near certainty, and never used.
        """
        return "validation"

    @property
    def reads(self) -> Reads:
        """What combiners read of an example besides the members' outputs; `outputs` for nothing."""
        return "outputs"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that the method fuses."""
        return frozenset({"classification", "multilabel", "regression"})

    @property
    def instead(self) -> str:
        """What to use for tasks of other kinds, as typed on the command line."""
        return "strategy=output_fusion/average"

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
            raise IncompatibleStrategyError(
                f"{self.name} with these settings is for {' and '.join(sorted(self.kinds))}. Found tasks of the kinds "
                f"{', '.join(several)}. Did you mean output_fusion/average, which fits them all?"
            )
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
        validation_data = context.development.validation
        logits = context.base_models.logits("validation")
        out_of_fold = self.fitted and self.fit_on == "out_of_fold"
        fit_logits, fit_data = _out_of_fold(context) if out_of_fold else (logits, validation_data)
        features_NF = pool_features(self.reads, validation_data.inputs, context.base_models)
        fit_features_NF = features_NF
        if out_of_fold:
            fit_features_NF = pool_features(self.reads, fit_data.inputs, context.base_models)
        combiners, validation, fit = {}, {}, {}
        for task in context.development.tasks:
            outputs_MNC, targets = logits[task.name], validation_data.targets[task.name]
            ids = validation_data.ids.tolist()
            check_predictions(outputs_MNC, targets, task.kind, split="validation", ids=ids)
            predictions = Predictions(
                logits_MNC=fit_logits[task.name],
                kind=task.kind,
                labels=fit_data.targets[task.name],
                features_NF=fit_features_NF,
                task=task,
                metric=metric_of(task, context.selection_metric),
                generator=context.generator(f"{self.name}/{task.name}"),
                fit=context.fit,
            )
            combiner = self.combine(predictions).eval()
            combiners[task.name] = combiner
            if self.fitted:
                fit[task.name] = scores(task, fused_outputs(combiner, predictions), predictions.truth)
            in_sample = self.fitted and not out_of_fold
            whole = replace(predictions, logits_MNC=outputs_MNC, labels=targets, features_NF=features_NF)
            honest_NC = self._cross_fitted(whole, task, context) if in_sample else fused_outputs(combiner, whole)
            validation[task.name] = scores(task, honest_NC, targets)
        fused = fused_model(context, combiners, validation=validation, fit=fit)
        return replace(fused, looks=0) if out_of_fold else fused

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
    validation: Mapping[str, dict[str, float]],
    fit: Mapping[str, dict[str, float]],
) -> FusedModel:
    """The fused model of one combiner a task; members that no task listens to are left out of its network."""
    num_members = len(context.base_models)
    dropped = frozenset.intersection(*(combiner.unused for combiner in combiners.values()))
    kept = tuple(index for index in range(num_members) if index not in dropped)
    network = Fused(
        [context.base_models[index].network() for index in kept],
        {name: copy.deepcopy(combiner) for name, combiner in combiners.items()},
        kept=kept,
        num_members=num_members,
    )
    return FusedModel(
        network=network.eval(),
        validation=validation,
        fit=fit,
        members=kept,
        combiners=None if any(combiner.reads != "outputs" for combiner in combiners.values()) else combiners,
        weights={
            name: None if combiner.weights is None else combiner.weights.tolist()
            for name, combiner in combiners.items()
        },
        diagnostics={**_diagnostics(combiners), "fusion/dropped": sorted(dropped)},
        looks=1 if fit else 0,
    )


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


def _out_of_fold(context: Context) -> tuple[dict[str, Tensor], Split]:
    """Task -> (M, N, C) outputs of members trained without the example's fold, and the training split."""
    train, tasks = context.development.train, context.development.tasks
    strata_N = train.targets[tasks[0].name] if len(tasks) == 1 else None
    folds_N = folds(strata_N, len(train), context.cross_fit, context.generator("out_of_fold"))
    logits = context.base_models.out_of_fold_logits(folds_N)
    for task in tasks:
        ids = train.ids.tolist()
        check_predictions(logits[task.name], train.targets[task.name], task.kind, split="training data", ids=ids)
    return logits, train


def _has_labels(targets: Tensor) -> bool:
    labelled = ~targets.isnan() if targets.is_floating_point() else targets >= 0
    return bool(labelled.any())
