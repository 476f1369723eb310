"""`output_fusion/greedy_selection`: weights by greedy forward selection on validation data.

Dimensions in tensor names: M members, F numbers a member predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.metrics import higher_is_better
from transfuse.strategy.output_fusion.bag_loss import bag_loss, likelihoods
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.greedy_path import GreedyPath, TieBreak, greedy_path
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import kinds_with
from transfuse.types import Development, HyperparameterError, TaskKind

_TIES = ("nll", "first", "random")


@dataclass(frozen=True, kw_only=True)
class GreedySelection(OutputFusion):
    """`p = sum_m w_m p_m`, `w_m` the share of member m in a bag that is grown greedily on validation data.

    Every step adds the member with which the bag's average has the lowest loss; of all bags on the way the best is
    kept. It is never worse on the data that it was selected on than the best single member: with several bags, than the
    best of each bag's own members.

    Differs from the paper: the best bag on the way is kept, not the last; ties prefer members already in the bag;
    losses are rounded to 6 decimals (all as in AutoGluon).

    Attributes:
        size: number of steps, >= 1.
        replacement: whether a member may enter several times.
        metric: what decides: any metric of the task. `nll` is smooth; `accuracy` has many ties.
        bags: number of selections whose weights are averaged, >= 1; each uses a part of the members, drawn at random.
        bag_fraction: share of the members that each of several bags draws, in (0, 1].
        init: number of steps, in [0, size], that take the best single members before the search starts.
        ties: what decides between equally good members outside of the bag: the lower `nll` (in regression the first),
            the `first`, or a `random` draw.

    Reference:
        Caruana, Niculescu-Mizil, Crew & Ksikes 2004, Ensemble selection from libraries of models.
    """

    size: int = 25
    replacement: bool = True
    metric: str = "nll"
    bags: int = 1
    bag_fraction: float = 0.5
    init: int = 0
    ties: Literal["nll", "first", "random"] = "nll"

    def __post_init__(self) -> None:
        higher_is_better(self.metric)  # a metric that does not exist is refused here
        for name, value in (("size", self.size), ("bags", self.bags)):
            if not isinstance(value, int) or value < 1:
                raise HyperparameterError(f"`{name}` should be an integer >= 1. Found `{name} = {value}`.")
        if not 0 < self.bag_fraction <= 1:
            raise HyperparameterError(
                f"`bag_fraction` should be in (0, 1]. Found `bag_fraction = {self.bag_fraction}`."
            )
        if not 0 <= self.init <= self.size:
            raise HyperparameterError(f"`init` should be in [0, size = {self.size}]. Found `init = {self.init}`.")
        if self.ties not in _TIES:
            raise HyperparameterError(f"`ties` should be nll, first or random. Found `ties = {self.ties}`.")

    @property
    def fitted(self) -> bool:
        """It reads labels."""
        return True

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that have the metric."""
        return kinds_with(self.metric)

    @property
    def instead(self) -> str:
        """A metric of the other kinds."""
        return "strategy.metric=nll" if "regression" in self.kinds else "strategy.metric=rmse"

    def check(self, development: Development, base_models: Description) -> None:
        """There must be members enough to start from."""
        super().check(development, base_models)
        self._check_init(len(base_models))

    def combine(self, predictions: Predictions) -> LinearPool:
        """The linear pool with the selection's weights; `fusion/second_loss_<m>` is what member m offered in step 2."""
        self._check_init(predictions.num_members)
        values_MF, losses = bag_loss(predictions, self.metric)
        by_nll = self.ties == "nll" and predictions.kind != "regression"
        likelihoods_MF = (values_MF if self.metric == "nll" else likelihoods(predictions)) if by_nll else None
        paths = []
        weights_M = torch.zeros(predictions.num_members, dtype=torch.float64)
        for members in self._bags(predictions):
            drawn = slice(None) if self.bags == 1 else members
            path = greedy_path(
                values_MF[drawn],
                losses,
                size=self.size,
                break_tie=self._tie_break(
                    predictions.generator, None if likelihoods_MF is None else likelihoods_MF[drawn]
                ),
                replacement=self.replacement,
                init=self.init,
            )
            weights_M[members] += path.weights / self.bags
            paths.append(path)
        kept_loss = float(losses((weights_M @ values_MF)[None], values_MF[0], 1.0))
        return LinearPool(
            predictions.kind,
            weights=weights_M / weights_M.sum(),
            diagnostics={
                "fusion/kept_loss": kept_loss,
                "fusion/kept_members": float((weights_M > 0).sum()),
                **(_steps(paths[0], kept_loss) if self.bags == 1 else {}),
            },
        )

    def _check_init(self, num_members: int) -> None:
        drawn = self._drawn(num_members)
        if self.init > drawn:
            raise HyperparameterError(
                f"`init` should be at most {drawn}, the number of members to select from. Found `init = {self.init}`."
            )

    def _drawn(self, num_members: int) -> int:
        # ceil, but 0.3 * 10 is 3
        return num_members if self.bags == 1 else math.ceil(self.bag_fraction * num_members - 1e-9)

    def _bags(self, predictions: Predictions) -> list[list[int]]:
        """The members that each bag may use; all for a single bag."""
        num_members = predictions.num_members
        if self.bags == 1:
            return [list(range(num_members))]
        drawn = self._drawn(num_members)
        orders = (torch.randperm(num_members, generator=predictions.generator) for _ in range(self.bags))
        return [sorted(order[:drawn].tolist()) for order in orders]

    def _tie_break(self, generator: torch.Generator, likelihoods_MF: Tensor | None) -> TieBreak:
        if self.ties == "random":
            return lambda bag, tied: tied[int(torch.randint(len(tied), (1,), generator=generator))]
        if likelihoods_MF is None:
            return lambda bag, tied: tied[0]
        return lambda bag, tied: lowest_nll(likelihoods_MF, bag, tied)


def lowest_nll(likelihoods_MF: Tensor, bag: Sequence[int], tied: Sequence[int]) -> int:
    """Which of the tied members gives the average of the bag and itself the lowest NLL; the first of equals."""
    if len(tied) == 1:
        return tied[0]
    sum_F = likelihoods_MF[list(bag)].sum(dim=0)
    return tied[int((sum_F + likelihoods_MF[list(tied)]).log().mean(dim=1).argmax())]


def _steps(path: GreedyPath, kept_loss: float) -> dict[str, float]:
    best_single = min(path.single_losses)
    assert kept_loss <= best_single + 1e-9 * max(1.0, abs(best_single)), "selection is never worse than the best member"
    return {
        "fusion/best_single_loss": best_single,
        "fusion/kept_steps": float(len(path.indices)),
        **{f"fusion/second_loss_{member}": loss for member, loss in path.second_losses.items()},
    }
