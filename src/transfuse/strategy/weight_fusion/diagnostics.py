"""What every weight fusion says about itself: how far apart the members are, and whether fusing them made sense.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from transfuse.leaves import gram, pairwise_sum
from transfuse.metrics import higher_is_better, metric_of
from transfuse.state_dict import StateDict, batch_norm_statistics
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import Scores

_SHARED_START = 0.2  # independently trained networks have cosines near 0


def weights_gram(state_dicts: Sequence[StateDict]) -> Tensor:
    """(K, K) float64 inner products of all floating tensors but BatchNorm's statistics, which are no weights."""
    means = batch_norm_statistics(state_dicts[0])
    left_out = {*means, *means.values()}
    grams = [
        gram([state[key] for state in state_dicts])
        for key, value in state_dicts[0].items()
        if value.is_floating_point() and key not in left_out
    ]
    return pairwise_sum([torch.zeros(len(state_dicts), len(state_dicts), dtype=torch.float64), *grams])


def mean_cosine(gram_KK: Tensor) -> float | None:
    """Mean over pairs of G_ij / sqrt(G_ii G_jj); None for fewer than two models, 0 for a pair with a zero vector.

    Example:
        >>> mean_cosine(torch.tensor([[4.0, 2.0], [2.0, 1.0]]))
        1.0
    """
    num_models = len(gram_KK)
    if num_models < 2:
        return None
    norms_K = gram_KK.diagonal().sqrt()
    cosines_KK = gram_KK / (norms_K[:, None] * norms_K[None, :]).clamp_min(torch.finfo(gram_KK.dtype).tiny)
    first, second = torch.triu_indices(num_models, num_models, offset=1)
    return float(cosines_KK[first, second].mean())


def describe(parts: Parts, fused: StateDict, batch_norm: str) -> dict[str, Any]:
    """Numbers of every weight fusion for the record.

    Args:
        parts: the members.
        fused: the fused tensors.
        batch_norm: how running statistics were made, or `none`.
    """
    floating = [value for value in fused.values() if value.is_floating_point()]
    return {
        "fused": "backbone" if parts.heads else "all",
        "fused_tensors": len(floating),
        "fused_elements": sum(value.numel() for value in floating),
        "batch_norm": batch_norm,
        "mean_cosine": mean_cosine(weights_gram(parts.states)),
    }


def verdict(context: Context, parts: Parts, validation: Mapping[str, Scores], cosine: float | None) -> str | None:
    """A sentence where the fused network is worse than its worst member on some task; None otherwise.

    Args:
        context: of the run.
        parts: the members; those of a transfer problem's source are scored on other data and do not count.
        validation: of the fused network.
        cosine: mean cosine of the members' weights.
    """
    for task in context.development.tasks:
        metric = metric_of(task, context.selection_metric)
        members = [
            member.validation[task.name][metric]
            for member in parts.members
            if member.description.trained_on == "target" and metric in member.validation.get(task.name, {})
        ]
        if cosine is None or not members or metric not in validation[task.name]:
            continue
        upward = higher_is_better(metric)
        worst, found = (min if upward else max)(members), validation[task.name][metric]
        if found < worst if upward else found > worst:
            where = f" on {task.name}" if len(context.development.tasks) > 1 else ""
            return (
                f"the soup is worse than its worst member ({metric} {found:.2g} against {worst:.2g}{where}): "
                f"{_reason(cosine)}"
            )
    return None


def _reason(cosine: float) -> str:
    if cosine < _SHARED_START:
        return (
            f"members do not share an initialization (mean cosine of weights {cosine:.2f}). "
            "Try base_models=finetuned or an output_fusion strategy."
        )
    return (
        f"members went too far apart (mean cosine of weights {cosine:.2f}). "
        "Try strategy=weight_fusion/greedy_soup or an output_fusion strategy."
    )
