"""Linear mode connectivity: the loss along the straight path between two models.

Dimensions in tensor names: K models, N examples, C classes, J points of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from transfuse.metrics import higher_is_better, score
from transfuse.models.batch_norm import full_batches, has_batch_norm, reestimate
from transfuse.models.predict import predict
from transfuse.state_dict import StateDict, batch_norm_statistics
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import Task

POINTS = 11
_ALL_PAIRS = 5  # models; more are compared with the reference alone
# With BatchNorm a point costs a pass over training data: between all pairs of 5 ResNets on digits that took 18 % of
# their training time, from the best one to the others 7 %, between all pairs of 3 at most 9 %.
_ALL_PAIRS_BATCH_NORM = 3
_EXAMPLES = 1024  # of the training data, for BatchNorm statistics at each point
_LOSSES = ("nll", "rmse")
_MEASURES: Mapping[str, tuple[str, ...]] = {
    "classification": ("nll", "accuracy"),
    "multilabel": ("nll", "f1_macro"),
    "regression": ("rmse",),
}


@dataclass(frozen=True, kw_only=True)
class Path:
    """Scores at equidistant points `(1 - t) x_first + t x_second`, t from 0 to 1.

    Attributes:
        first, second: indices of the models.
        scores: task -> metric -> J values.
        owners: task -> the end, first or second, whose head judges it; empty where both ends have all heads.
    """

    first: int
    second: int
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    owners: Mapping[str, int] = field(default_factory=dict)

    def barrier(self, task: str, metric: str) -> float:
        """See `barrier_of`."""
        return barrier_of(self.scores[task][metric], upward=higher_is_better(metric))

    def excess(self) -> float | None:
        """`min_t mean_i (L_i(t) - L_i(own))`: what the pair pays at the best point of the path.

        L_i is the loss of task i by its own head, L_i(own) that at its owner's end. None where both ends have all
        heads, and where the tasks' losses have no common metric.
        """
        metric = next((name for name in _LOSSES if all(name in found for found in self.scores.values())), None)
        if not self.owners or metric is None:
            return None
        above_TJ: list[list[float]] = []
        for task, found in self.scores.items():
            values_J = found[metric]
            own = values_J[0 if self.owners[task] == self.first else -1]
            above_TJ.append([value - own for value in values_J])
        least: float = min(sum(above_T) / len(above_T) for above_T in zip(*above_TJ, strict=True))
        return least

    def row(self) -> dict[str, Any]:
        """For the record: all scores, the barriers and, for ends with heads of their own, the excess."""
        return {
            "models": [self.first, self.second],
            **({"excess": self.excess()} if self.owners else {}),
            "barrier": {
                task: {name: self.barrier(task, name) for name in found} for task, found in self.scores.items()
            },
            "scores": {
                task: {name: list(values) for name, values in found.items()} for task, found in self.scores.items()
            },
        }


def barrier_of(values_J: Sequence[float], *, upward: bool = False) -> float:
    """`max_t L(t) - ((1 - t) L(0) + t L(1))` over the points; for metrics where higher is better, of `-L`.

    Never below 0: the ends lie on their chord.

    Args:
        values_J: J >= 2 values at equidistant points.
        upward: whether higher is better.

    Example:
        >>> barrier_of([1.0, 3.0, 2.0])
        1.5

    Reference:
        Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", 1912.05671.
    """
    sign, last = (-1.0 if upward else 1.0), len(values_J) - 1
    return max(
        sign * (value - ((1 - index / last) * values_J[0] + index / last * values_J[-1]))
        for index, value in enumerate(values_J)
    )


def paths(context: Context, parts: Parts) -> tuple[Path, ...]:
    """The paths between all pairs of up to five models, else from the best model to each other one.

    On validation data, at 11 points. Where the networks have BatchNorm, its statistics are measured anew at each point
    between, on up to 1024 training examples, and all pairs are walked of up to three models only. Where heads are not
    fused, the path moves the backbone, and each task is judged by the head that the fused network keeps, on the paths
    that start or end at its owner.

    Args:
        context: of the run.
        parts: the members.
    """
    num_models = len(parts.members)
    if num_models < 2 or any(member.description.trained_on != "target" for member in parts.members):
        return ()
    network = parts.network({})
    batch_norm = has_batch_norm(network)
    if num_models <= (_ALL_PAIRS_BATCH_NORM if batch_norm else _ALL_PAIRS):
        pairs: Iterator[tuple[int, int]] = combinations(range(num_models), 2)
    else:
        reference = best_member(context, parts)
        pairs = ((reference, index) for index in range(num_models) if index != reference)
    judge = _judge(context, network, batch_norm=batch_norm)
    ends = [judge(state, True) for state in parts.states]
    found = []
    for first, second in pairs:
        owners = {task: owner for task, owner in parts.heads.items() if owner in (first, second)}
        if parts.heads and not owners:
            continue
        inner = [
            judge(interpolated(parts.states[first], parts.states[second], step / (POINTS - 1)), False)
            for step in range(1, POINTS - 1)
        ]
        scores = _by_task([ends[first], *inner, ends[second]])
        judged = {task: scores[task] for task in owners} if parts.heads else scores
        found.append(Path(first=first, second=second, scores=judged, owners=owners))
    return tuple(found)


def best_member(context: Context, parts: Parts) -> int:
    """Index of the best member by its stored validation scores; the first of equals."""
    metric = _MEASURES[context.development.tasks[0].kind][0]
    task = context.development.tasks[0].name
    sign = 1.0 if higher_is_better(metric) else -1.0
    values = [sign * member.validation.get(task, {}).get(metric, -sign * float("inf")) for member in parts.members]
    return max(range(len(values)), key=lambda index: (values[index], -index))


def interpolated(first: StateDict, second: StateDict, t: float) -> dict[str, Tensor]:
    """`(1 - t) x_first + t x_second`; integer buffers are the first's, variances follow the law of total variance.

    Example:
        >>> interpolated({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
        {'w': tensor([1.])}
    """
    mixed = {
        key: torch.lerp(value, second[key], t) if value.is_floating_point() else value for key, value in first.items()
    }
    for mean, variance in batch_norm_statistics(first).items():
        # var = E[var_i + mean_i^2] - mean^2
        squares = torch.lerp(first[variance] + first[mean] ** 2, second[variance] + second[mean] ** 2, t)
        mixed[variance] = (squares - mixed[mean] ** 2).clamp_min(0)
    return mixed


Judged = Mapping[str, Mapping[str, float]]


def _judge(context: Context, network: nn.Module, *, batch_norm: bool) -> Callable[[StateDict, bool], Judged]:
    validation, tasks = context.development.validation, context.development.tasks
    train = context.development.train.inputs
    examples = train[torch.randperm(len(train), generator=context.generator("barrier/examples"))[:_EXAMPLES]]

    def judge(state: StateDict, is_member: bool) -> Judged:
        network.load_state_dict(state, strict=False)
        if batch_norm and not is_member:
            stream = context.generator("barrier/batch_norm")
            reestimate(network, network.modules(), full_batches(examples, context.training.batch_size, stream))
        outputs = predict(network, validation.inputs)
        return {task.name: _scores(task, outputs[task.name], validation.targets[task.name]) for task in tasks}

    return judge


def _scores(task: Task, outputs_NC: Tensor, targets: Tensor) -> Mapping[str, float]:
    return {metric: score(task, outputs_NC, targets, metric) for metric in _MEASURES[task.kind]}


def _by_task(judged_J: Sequence[Judged]) -> dict[str, dict[str, tuple[float, ...]]]:
    return {
        task: {metric: tuple(judged[task][metric] for judged in judged_J) for metric in found}
        for task, found in judged_J[0].items()
    }
