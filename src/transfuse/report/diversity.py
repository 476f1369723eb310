"""How much the members of each pool differ, from the predictions that `baseline/mean_single` stores.

Dimensions: M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from transfuse.evaluation.diversity import Diversity, diversity
from transfuse.report.contests import Contest, Entry
from transfuse.report.outputs import read_outputs
from transfuse.types import Task

MEMBERS = "baseline/mean_single"  # the strategy that stores (M, N, C)


@dataclass(frozen=True, kw_only=True)
class PoolDiversity:
    """Measures of one pool of base models on the test split, means over seeds.

    Attributes:
        pool: the settings that tell it from other pools of the sweep; `base models` where there is one.
        members: their names.
        measure: what `pairs_MM` holds: `disagreement`, for regression `residual_correlation`.
        pairs_MM: (M, M) of each two members.
        numbers: measure -> mean over pairs (`transfuse.evaluation.diversity`); what no seed defines is missing.
    """

    pool: str
    members: tuple[str, ...]
    measure: str
    pairs_MM: Tensor
    numbers: dict[str, float]


def pool_diversity(contest: Contest, task: Task) -> list[PoolDiversity]:
    """One entry a pool, in the order of the sweep; none without `baseline/mean_single` or its predictions."""
    reports = [entry for entry in contest.entries if entry.record.strategy == MEMBERS]
    found = []
    for label in dict.fromkeys(entry.label for entry in reports):
        measured = [_of_one(entry, task) for entry in reports if entry.label == label]
        by_seed = [one for one in measured if one is not None]
        if by_seed and len({len(one.members) for one in by_seed}) == 1:
            found.append(_mean(label.removeprefix(MEMBERS).strip() or "base models", by_seed))
    return found


def _of_one(entry: Entry, task: Task) -> Diversity | None:
    stored = read_outputs(entry.folder, task.name)
    if stored is None or len(stored.outputs_MNC) < 2:
        return None
    num_members, _, num_outputs = stored.outputs_MNC.shape
    models = entry.record.base_models  # a pool may hold more than its members, such as their common start
    names = [str(models[i]["name"]) for i in entry.record.fused.get("members", ()) if i < len(models)]
    if len(names) != num_members:
        names = [f"member {index}" for index in range(num_members)]
    return diversity(replace(task, outputs=num_outputs), stored.outputs_MNC, stored.labels, names)


def _mean(pool: str, by_seed: Sequence[Diversity]) -> PoolDiversity:
    measure = next(iter(by_seed[0].pairwise))
    numbers: dict[str, float] = {}
    for name in dict.fromkeys(name for one in by_seed for name in one.numbers):
        numbers[name] = fmean(one.numbers[name] for one in by_seed if name in one.numbers)
    return PoolDiversity(
        pool=pool,
        members=by_seed[0].members,
        measure=measure,
        pairs_MM=torch.stack([one.pairwise[measure] for one in by_seed]).nanmean(0),
        numbers=numbers,
    )
