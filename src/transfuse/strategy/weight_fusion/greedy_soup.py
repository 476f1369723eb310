"""`weight_fusion/greedy_soup`: models join the average one by one, as long as validation does not suffer.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from transfuse.base_models.model import Description
from transfuse.metrics import higher_is_better, metric_names, unknown_metric
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import predictions
from transfuse.strategy.weight_fusion.judging import Outputs, selection_score
from transfuse.strategy.weight_fusion.network_fusion import Choice, NetworkFusion
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import Development, HyperparameterError

_ACCEPT = ("not_worse", "better")


def greedy_selection(
    goodness_K: Sequence[float],
    judge: Callable[[tuple[int, ...]], float],
    *,
    accept: Literal["not_worse", "better"] = "not_worse",
) -> tuple[int, ...]:
    """Members of the greedy soup, in the order in which they joined.

    Models are tried from best to worst (the first of equals first). The best one starts; each other joins if the
    average with it is not worse than the best average so far.

    Args:
        goodness_K: validation scores of the single models, higher is better.
        judge: validation score of the average of some models; called once for each model but the best.
        accept: whether an equal score is enough.

    Returns:
        Indices of the kept models; the score of their average is never below the best single one.

    Example:
        >>> greedy_selection([0.7, 0.9, 0.8], lambda members: {(1, 2): 0.85, (1, 0): 0.95}[members])
        (1, 0)

    Reference:
        Wortsman et al. 2022, 2203.05482, recipe 1.
    """
    order = sorted(range(len(goodness_K)), key=lambda index: -goodness_K[index])
    kept: tuple[int, ...] = (order[0],)
    best = goodness_K[order[0]]
    for index in order[1:]:
        found = judge((*kept, index))
        if found > best or (found == best and accept == "not_worse"):
            kept, best = (*kept, index), found
    return kept


@dataclass(frozen=True, kw_only=True)
class GreedySoup(NetworkFusion):
    """x = mean of the models that `greedy_selection` keeps; each is tried once, on the whole validation split.

    Attributes:
        metric: what decides; null takes the run's selection metric. The paper takes `accuracy`; `nll` is smoother.
        accept: `not_worse` (the paper) or `better` than the best average so far.
    """

    metric: str | None = None
    accept: Literal["not_worse", "better"] = "not_worse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric is not None:
            higher_is_better(self.metric)
        if self.accept not in _ACCEPT:
            raise HyperparameterError(f"`accept` should be not_worse or better. Found `accept = {self.accept}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """The metric must also be one of the tasks'."""
        super().check(development, base_models)
        known = dict.fromkeys(name for task in development.tasks for name in metric_names(task.kind))
        if self.metric is not None and self.metric not in known:
            raise unknown_metric(self.metric, known, "metric")

    def select(self, context: Context, parts: Parts) -> Choice:
        """Tries the models from best to worst."""
        metric = self.metric or context.selection_metric
        num_models = len(parts.members)
        candidates: dict[tuple[int, ...], Outputs] = {}
        candidates.update(((index,), outputs) for index, outputs in enumerate(self._singles(context, parts)))
        goodness = {members: _goodness(context, outputs, metric) for members, outputs in candidates.items()}

        def judge(members: tuple[int, ...]) -> float:
            network, _ = self.mixture(context, parts, _ones(members, num_models), len(members))
            candidates[members] = predictions(context, network)
            goodness[members] = _goodness(context, candidates[members], metric)
            return goodness[members]

        singles_K = [goodness[index,] for index in range(num_models)]
        kept = greedy_selection(singles_K, judge, accept=self.accept)
        assert goodness[kept] >= max(singles_K), "a greedy soup is never worse than its best member"
        sign = 1.0 if higher_is_better(metric) else -1.0
        return Choice(
            weights_K=_ones(kept, num_models),
            divisor=len(kept),
            candidates=tuple(candidates.values()),
            index=list(candidates).index(kept),
            metric=metric,
            looks=len(candidates),
            diagnostics={
                "kept": list(kept),
                "metric": metric,
                "scores": [{"members": list(members), metric: sign * value} for members, value in goodness.items()],
                "verdict": "no mixture beats the best member" if len(kept) == 1 < num_models else None,
            },
        )

    def _singles(self, context: Context, parts: Parts) -> list[Outputs]:
        """Outputs of each model alone: the stored ones; with heads of their own, each backbone under all heads."""
        num_models = len(parts.members)
        if parts.heads:
            networks = (self.mixture(context, parts, _ones((index,), num_models))[0] for index in range(num_models))
            return [predictions(context, network) for network in networks]
        logits = context.base_models.logits("validation")
        return [{task: outputs_MNC[index] for task, outputs_MNC in logits.items()} for index in range(num_models)]


def _ones(members: tuple[int, ...], num_models: int) -> tuple[float, ...]:
    return tuple(float(index in members) for index in range(num_models))


def _goodness(context: Context, outputs: Outputs, metric: str) -> float:
    """The metric, averaged over tasks, with the sign that makes higher better."""
    value = selection_score(context, outputs, metric)
    return value if higher_is_better(metric) else -value
