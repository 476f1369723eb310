"""`multi_task/tuned_static`: fixed weights of the losses, picked on validation data.

Dimensions in tensor names: J trials, T tasks, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats
from scipy.stats import qmc
from torch import Tensor

from transfuse.metrics import DELTA_M_METRICS, delta_m, higher_is_better, scores
from transfuse.models.predict import predict
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.cma_es import cma_es
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.multi_task.base import MultiTask
from transfuse.strategy.multi_task.static import StaticWeights
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError, Scores, Task

Outputs = Mapping[str, Tensor]
ByTask = Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class TunedStaticWeights(MultiTask):
    """`multi_task/static` with the best of several sets of weights: what balancers have to beat.

    The first trial has equal weights. Which is best is said by delta-m on validation data where the base models are one
    network a task, else by the mean rank over tasks; the record's validation scores are those of a choice that is made
    anew without each fold.

    Attributes:
        num_trials: networks that are trained, >= 1; all their steps are in the record.
        low: smallest weight relative to the others, > 0.
        high: largest one, >= low.
        search: `halton`: weights spread evenly over their logarithms; `optuna`: CMA-ES on delta-m, measured against
            equal weights where there are no single-task networks.
        shorter_budget: share of the run's training that trials get, in (0, 1]; below 1 the best weights are then
            trained in full.

    Reference:
        Xin et al. 2022, "Do Current Multi-Task Optimization Methods in Deep Learning Even Help?", 2209.11379.
    """

    num_trials: int = 10
    low: float = 0.05
    high: float = 20.0
    search: str = "halton"
    shorter_budget: float = 1.0

    def __post_init__(self) -> None:
        if self.num_trials < 1:
            raise HyperparameterError(f"`num_trials` should be >= 1. Found `num_trials = {self.num_trials}`.")
        if not 0 < self.low <= self.high < math.inf:
            raise HyperparameterError(
                f"`low` should be > 0 and at most `high`. Found `low = {self.low}`, `high = {self.high}`."
            )
        if self.search not in ("halton", "optuna"):
            raise HyperparameterError(f"`search` should be halton or optuna. Found `search = {self.search}`.")
        if not 0 < self.shorter_budget <= 1:
            raise HyperparameterError(
                f"`shorter_budget` should be in (0, 1]. Found `shorter_budget = {self.shorter_budget}`."
            )

    def apply(self, context: Context) -> FusedModel:
        """Trains all trials, and the chosen weights in full."""
        trials = _Trials(context, shortened(context.training, self.shorter_budget))
        if self.search == "halton":
            for position in spread(self.num_trials, len(context.development.tasks), derive_seed(context.seed, "tuned")):
                trials.run(self._weights(position))
        else:
            cma_es(
                lambda position: -trials.run(self._weights(position)),
                dimension=len(context.development.tasks),
                trials=self.num_trials,
                seed=derive_seed(context.seed, "tuned"),
            )
        chosen = trials.best()
        fused = trials.fused[chosen]
        steps = sum(each.steps for each in trials.fused)
        if self.shorter_budget < 1:
            fused = _trained(context, trials.weights[chosen])
            steps += fused.steps
        single = self.shorter_budget == 1
        return replace(
            fused,
            validation=trials.honest() if single else fused.validation,
            fit=trials.fused[chosen].validation if single else {},
            diagnostics={**fused.diagnostics, "trials": trials.rows(), "taken": chosen},
            looks=fused.looks + len(trials.fused),
            steps=steps,
        )

    def _weights(self, position: Sequence[float]) -> list[float]:
        """Positions in [-1, 1] as weights between `low` and `high`, even on a logarithmic scale."""
        middle, half = (math.log(self.low) + math.log(self.high)) / 2, (math.log(self.high) - math.log(self.low)) / 2
        return [math.exp(middle + half * each) for each in position]


class _Trials:
    """Networks with fixed weights, and how they do on validation data."""

    def __init__(self, context: Context, training: Training) -> None:
        self._context = replace(context, training=training)
        self._tasks = context.development.tasks
        self._targets = context.development.validation.targets
        self._single = _single_task(context)
        self.weights: list[list[float]] = []
        self.fused: list[FusedModel] = []
        self._outputs: list[Outputs] = []

    def run(self, weights: list[float]) -> float:
        """Trains one; returns its delta-m, against the single-task networks or else the first trial."""
        fused = _trained(self._context, weights)
        assert fused.network is not None, "a balancer trains one"
        self.weights.append(weights)
        self.fused.append(fused)
        self._outputs.append(predict(fused.network, self._context.development.validation.inputs))
        everyone = torch.arange(len(self._context.development.validation))
        baseline = self._single or _scores(self._tasks, self._outputs[0], self._targets, everyone)
        return delta_m(_scores(self._tasks, self._outputs[-1], self._targets, everyone), baseline)

    def best(self, index: Tensor | None = None) -> int:
        """The best trial on these examples, or on all; the first of equals."""
        at = torch.arange(len(self._context.development.validation)) if index is None else index
        found = [_scores(self._tasks, outputs, self._targets, at) for outputs in self._outputs]
        if self._single:
            return int(np.argmax([delta_m(each, self._single) for each in found]))
        return int(np.argmin(_mean_ranks(found)))

    def honest(self) -> dict[str, Scores]:
        """Scores of the choice, each fold judged by one that did not see it."""
        context, first = self._context, self._targets[self._tasks[0].name]
        folds_N = folds(first, len(first), context.cross_fit, context.generator("cross_fit"))
        outputs = {name: values.clone() for name, values in self._outputs[0].items()}
        for fold in range(context.cross_fit):
            chosen = self._outputs[self.best((folds_N != fold).nonzero().flatten())]
            for name, values in outputs.items():
                values[folds_N == fold] = chosen[name][folds_N == fold]
        return {task.name: scores(task, outputs[task.name], self._targets[task.name]) for task in self._tasks}

    def rows(self) -> list[dict[str, object]]:
        """For the record."""
        names = [task.name for task in self._tasks]
        return [
            {"weights": dict(zip(names, weights, strict=True)), "validation": dict(fused.validation)}
            for weights, fused in zip(self.weights, self.fused, strict=True)
        ]


def spread(trials: int, tasks: int, seed: int) -> list[list[float]]:
    """Positions in [-1, 1]^T: the middle, then scrambled points of Halton's sequence."""
    if trials == 1:
        return [[0.0] * tasks]
    points = qmc.Halton(d=tasks, rng=np.random.default_rng(seed)).random(trials - 1)
    return [[0.0] * tasks, *(2.0 * points - 1.0).tolist()]


def shortened(training: Training, share: float) -> Training:
    """The same with a share of the epochs or steps, at least one."""
    if training.epochs is not None:
        return replace(training, epochs=max(1, round(share * training.epochs)))
    assert training.steps is not None, "exactly one of epochs and steps is set"
    return replace(training, steps=max(1, round(share * training.steps)))


def _trained(context: Context, weights: list[float]) -> FusedModel:
    return StaticWeights(weights=weights).apply(context)


def _single_task(context: Context) -> dict[str, Scores]:
    """What the pool's networks score on the metrics of delta-m, where it has one network a task; else nothing."""
    tasks = context.development.tasks
    if [member.tasks for member in context.base_models.description.members] != [(task.name,) for task in tasks]:
        return {}
    members = dict(zip(tasks, context.base_models, strict=True))
    return {
        task.name: {name: member.validation[task.name][name] for name in DELTA_M_METRICS[task.kind]}
        for task, member in members.items()
    }


def _scores(tasks: Sequence[Task], outputs: Outputs, targets: Mapping[str, Tensor], at: Tensor) -> dict[str, Scores]:
    """Task -> metric -> value on the examples at `at`, on the metrics of delta-m."""
    found = {}
    for task in tasks:
        every = scores(task, outputs[task.name][at], targets[task.name][at])
        found[task.name] = {name: every[name] for name in DELTA_M_METRICS[task.kind]}
    return found


def _mean_ranks(found: Sequence[ByTask]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of each trial, over tasks: averaged within a task first; 1 the best."""
    ranks_TJ = [
        np.mean(
            [
                stats.rankdata([each[task][name] * (-1 if higher_is_better(name) else 1) for each in found])
                for name in metrics
            ],
            axis=0,
        )
        for task, metrics in found[0].items()
    ]
    mean_J: np.ndarray[tuple[int], np.dtype[np.float64]] = np.mean(ranks_TJ, axis=0)
    return mean_J
