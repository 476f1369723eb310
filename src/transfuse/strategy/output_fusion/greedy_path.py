"""Ensemble selection: members enter a bag one by one, whoever lowers the loss of the bag's average most.

Dimensions in tensor names: M members, F numbers a member predicts, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Losses = Callable[[Tensor, Tensor, float], Tensor]
TieBreak = Callable[[Sequence[int], Sequence[int]], int]

_TIE = 1e-12  # relative difference below which losses are equal
_ROUND_ABOVE, _DECIMALS = 1e-4, 6


@dataclass(frozen=True, kw_only=True)
class GreedyPath:
    """The kept steps of a selection.

    Attributes:
        indices: of the members, in the order in which they entered; a member may enter several times.
        trajectory: loss of the bag's average after each kept step; the last is the lowest.
        single_losses: (M,) losses of the members alone.
        second_losses: what each candidate would have made of the loss in the second step, by member; empty where there
            was none.
    """

    indices: tuple[int, ...]
    trajectory: tuple[float, ...]
    single_losses: tuple[float, ...]
    second_losses: dict[int, float]

    @property
    def weights(self) -> Tensor:
        """(M,) float64 share of each member in the bag."""
        counts_M = torch.bincount(torch.tensor(self.indices), minlength=len(self.single_losses))
        return counts_M.double() / len(self.indices)


def greedy_path(
    values_MF: Tensor, losses: Losses, *, size: int, break_tie: TieBreak, replacement: bool = True, init: int = 0
) -> GreedyPath:
    """Step k adds `argmin_j loss((S + v_j) / (k + 1))`, S the sum of the k members in the bag; the best prefix is kept.

    A step costs O(M F). After the first step losses are rounded to 6 decimals if the lowest was above 1e-4, so that
    rounding errors do not choose. Among equal losses members already in the bag win, then `break_tie` decides.

    Args:
        values_MF: (M, F) float64: what is averaged, such as probabilities.
        losses: from candidates (K, F), the bag's average (F,) and the share s of the new member to the (K,) losses of
            `(1 - s) average + s candidate`. Lower is better.
        size: number of steps, >= 1.
        break_tie: called in every step with the bag and with the candidates that share the lowest loss; returns one.
        replacement: whether a member may enter several times; otherwise there are at most M steps.
        init: number of first steps that take the best single members, best first, instead of searching; <= M.

    Example:
        >>> def squared_error(values_KF, mean_F, share):
        ...     return (torch.lerp(mean_F, values_KF, share) - 3.0).square().mean(1)
        >>> values_MF = torch.tensor([[1.0], [4.0], [9.0]])
        >>> greedy_path(values_MF, squared_error, size=5, break_tie=lambda bag, tied: tied[0]).indices
        (1, 0, 1)

    Reference:
        Caruana et al. 2004, Ensemble selection from libraries of models, 2.1 and 2.2; conventions of AutoGluon.
    """
    num_members = len(values_MF)
    sum_F = torch.zeros_like(values_MF[0])
    bag: list[int] = []
    trajectory: list[float] = []
    found: list[dict[int, float]] = []
    rounding = False
    for step in range(size if replacement else min(size, num_members)):
        open_K = [member for member in range(num_members) if replacement or member not in bag]
        values_KF = values_MF if len(open_K) == num_members else values_MF[open_K]
        losses_K = losses(values_KF, sum_F / max(step, 1), 1 / (step + 1)).tolist()
        found.append(dict(zip(open_K, (_rounded(loss) if rounding else loss for loss in losses_K), strict=True)))
        if step < init:
            best = sorted(found[0], key=found[0].__getitem__)[step]
        else:
            best = break_tie(bag, _tied(found[step], bag))
        rounding = rounding or (step == 0 and abs(found[0][best]) > _ROUND_ABOVE)
        bag.append(best)
        trajectory.append(_rounded(found[step][best]) if rounding else found[step][best])
        sum_F += values_MF[best]
    kept = trajectory.index(min(trajectory)) + 1
    return GreedyPath(
        indices=tuple(bag[:kept]),
        trajectory=tuple(trajectory[:kept]),
        single_losses=tuple(found[0].values()),
        second_losses=found[1] if len(found) > 1 else {},
    )


def _tied(losses: dict[int, float], bag: Sequence[int]) -> list[int]:
    """The candidates with the lowest loss; only those in the bag where there are some."""
    lowest = min(losses.values())
    tied = [member for member, loss in losses.items() if loss <= lowest + _TIE * abs(lowest)]
    return [member for member in tied if member in bag] or tied


def _rounded(loss: float) -> float:
    return round(loss, _DECIMALS)
