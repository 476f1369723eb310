"""The sign election of TIES: models vote on each element's sign, and those that agree with the winner are merged.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.types import HyperparameterError

Merge = Literal["mean", "sum", "max"]
Elect = Literal["mass", "count"]
Weigh = Literal["before_election", "after"]
_CHOICES = {
    "merge": ("mean", "sum", "max"),
    "elect": ("mass", "count"),
    "weigh": ("before_election", "after"),
}

# Sums that cancel exactly in the reals leave the rounding of w_i d_i behind, which is no vote.
TIE = 2.0**-22
_NO_WEIGHT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What is left of the task vectors of a block when they are merged.

    Attributes:
        votes_KB: (K, B) trimmed, weighted where weights count in the election; memory of its own.
        elect: how the sign is elected; None where all values are merged, whatever their sign.
    """

    votes_KB: Tensor
    elect: Elect | None


def elected_sign(votes_KB: Tensor, *, elect: Elect = "mass") -> Tensor:
    """Sign that wins the vote on each element: plus unless minus has more; zeros do not vote.

    `mass`: sign(sum_i t_i); a tie, `|sum_i t_i| <= 2^-22 sum_i |t_i|`, is plus. `count`: sign(sum_i sign(t_i)).

    Args:
        votes_KB: (K, B) votes t_i; not written to.
        elect: votes weigh their magnitude (`mass`) or one each (`count`).

    Returns:
        (B,) of 1 and -1 in the votes' type.

    Example:
        >>> votes_KB = torch.tensor([[3.0, 1.0], [-1.0, -1.0], [-1.0, 0.0]])
        >>> elected_sign(votes_KB), elected_sign(votes_KB, elect="count")
        (tensor([1., 1.]), tensor([-1.,  1.]))
    """
    if elect == "count":
        votes_KB = votes_KB.sign()
    total_B, mass_B = votes_KB[0].clone(), votes_KB[0].abs()
    term_B = torch.empty_like(total_B)
    for votes_B in votes_KB[1:]:
        total_B += votes_B
        mass_B += torch.abs(votes_B, out=term_B)
    # s = -1 where sum t < -2^-22 sum |t|, else 1: the sum that is shifted by the tolerance is negative, or not
    shifted_B = total_B.add_(mass_B.mul_(TIE))
    return shifted_B.ge_(0).mul_(2).sub_(1)


def elect_and_merge(
    deltas_KB: Tensor,
    weights_K: Sequence[float],
    *,
    merge: Merge = "mean",
    elect: Elect = "mass",
    weigh: Weigh = "before_election",
) -> Tensor:
    """Merged task vector of those models that agree with the elected sign.

    With t_i = w_i d_i and s = `elected_sign` of t (of d with `weigh=after`), over the models whose vote has sign s:
    `mean`: sum t_i / sum w_i; `sum`: sum t_i; `max`: the t_i of largest magnitude. 0 where nobody agrees.

    Args:
        deltas_KB: (K, B) task vectors, trimmed or dropped as the method says; not written to.
        weights_K: K weights of any sign. Where those of the agreeing models cancel, their sum is not divided.
        merge: how agreeing values become one.
        elect: see `elected_sign`.
        weigh: whether weights count in the election.

    Returns:
        (B,) in the type of the deltas; the same bits for any cut into blocks.

    Example:
        >>> deltas_KB = torch.tensor([[3.0, 1.0], [1.0, -4.0], [-2.0, 0.0]])
        >>> elect_and_merge(deltas_KB, (1.0, 1.0, 1.0))
        tensor([ 2., -4.])
        >>> elect_and_merge(deltas_KB, (1.0, 1.0, 1.0), merge="sum")
        tensor([ 4., -4.])

    Reference:
        Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", 2306.01708, algorithm 1.
    """
    before = weigh == "before_election"
    votes_KB = weighed(deltas_KB, weights_K) if before else deltas_KB
    sign_B = elected_sign(votes_KB, elect=elect)
    # max(s t_i, 0): what agrees, as a magnitude
    agreed_KB = (votes_KB.mul_(sign_B) if before else votes_KB * sign_B).relu_()
    merged_B = torch.zeros_like(sign_B)
    for agreed_B, weight in zip(agreed_KB, weights_K, strict=True):
        term_B = agreed_B if before or weight == 1.0 else agreed_B * weight
        if merge == "max":
            torch.where(term_B.abs() > merged_B.abs(), term_B, merged_B, out=merged_B)
        else:
            merged_B += term_B
    if merge == "mean":
        merged_B /= _agreeing_weight(agreed_KB, weights_K)
    return merged_B.mul_(sign_B)


def check_election(merge: str, elect: str = "mass", weigh: str = "before_election") -> None:
    """Refuses unknown words in the fields of a method.

    Raises:
        HyperparameterError: names the field.
    """
    for name, value in (("merge", merge), ("elect", elect), ("weigh", weigh)):
        if value not in _CHOICES[name]:
            choices = f"{', '.join(_CHOICES[name][:-1])} or {_CHOICES[name][-1]}"
            raise HyperparameterError(f"`{name}` should be {choices}. Found `{name} = {value}`.")


def _agreeing_weight(agreed_KB: Tensor, weights_K: Sequence[float]) -> Tensor:
    """(B,) sum of the weights of the models that agree, never 0. Overwrites what agrees."""
    counted_KB = agreed_KB.sign_()
    total_B = counted_KB[0] * weights_K[0]
    for counted_B, weight in zip(counted_KB[1:], weights_K[1:], strict=True):
        total_B += counted_B.mul_(weight)
    if min(weights_K) >= 0:
        return total_B.clamp_min_(torch.finfo(total_B.dtype).tiny)  # nobody agrees: 0 / tiny = 0
    least = _NO_WEIGHT * sum(map(abs, weights_K))
    return total_B.masked_fill_(total_B.abs() <= least, 1.0)


def weighed(deltas_KB: Tensor, weights_K: Sequence[float]) -> Tensor:
    """t_i = w_i d_i, (K, B), new."""
    return deltas_KB * torch.tensor(weights_K, dtype=deltas_KB.dtype, device=deltas_KB.device)[:, None]
