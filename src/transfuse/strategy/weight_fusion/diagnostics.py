"""What every weight fusion says about itself: how far apart the members are, and whether fusing them made sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from transfuse.metrics import higher_is_better, metric_of
from transfuse.models.batch_norm import has_batch_norm
from transfuse.state_dict import StateDict
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.barrier import Path, paths
from transfuse.strategy.weight_fusion.geometry import geometry
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import Scores

_SHARED_START = 0.2  # cosine of weights: independently trained networks lie near 0
_HIGH_BARRIER = 0.1  # nats, or units of the target


def describe(context: Context, parts: Parts, fused: StateDict, batch_norm: str) -> dict[str, Any]:
    """Numbers of every weight fusion for the record: what was fused, `geometry` and `barrier`.

    Args:
        context: of the run.
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
        "mean_cosine": geometry(parts.states)[0].mean_cosine,
        "geometry": _geometry(context, parts),
        "barrier": _barrier(paths(context, parts)),
    }


def verdict(
    context: Context, parts: Parts, validation: Mapping[str, Scores], diagnostics: Mapping[str, Any]
) -> str | None:
    """A sentence where the fused network is worse than its worst member on some task; None otherwise.

    Args:
        context: of the run.
        parts: the members; those of a transfer problem's source are scored on other data and do not count.
        validation: of the fused network.
        diagnostics: of `describe`.
    """
    for task in context.development.tasks:
        metric = metric_of(task, context.selection_metric)
        members = [
            member.validation[task.name][metric]
            for member in parts.members
            if member.description.trained_on == "target" and metric in member.validation.get(task.name, {})
        ]
        if diagnostics["mean_cosine"] is None or not members or metric not in validation[task.name]:
            continue
        upward = higher_is_better(metric)
        worst, found = (min if upward else max)(members), validation[task.name][metric]
        if found < worst if upward else found > worst:
            where = f" on {task.name}" if len(context.development.tasks) > 1 else ""
            return (
                f"the soup is worse than its worst member ({metric} {found:.2g} against {worst:.2g}{where}): "
                f"{_reason(parts, diagnostics)}"
            )
    return None


def _reason(parts: Parts, diagnostics: Mapping[str, Any]) -> str:
    cosine, barrier = diagnostics["mean_cosine"], diagnostics["barrier"]
    height = _height(barrier) if barrier else ""
    found = f"{height}mean cosine of weights {cosine:.2f}"
    if cosine < _SHARED_START:
        return (
            f"members do not share an initialization ({found}). "
            "Try align=weight_matching, base_models=finetuned or an output_fusion strategy."
        )
    if diagnostics["batch_norm"] in ("average", "keep") and has_batch_norm(parts.members[0].network()):
        return f"BatchNorm statistics were not measured anew ({found}). Try strategy.batch_norm=reestimate."
    if barrier and (barrier["largest"] if barrier["excess"] is None else barrier["excess"]) <= _HIGH_BARRIER:
        return (
            f"the path between the members is {'low' if barrier['excess'] is not None else 'nearly flat'} ({found}): "
            "the method itself went too far. Try another scale."
        )
    rates = [member.description.lr for member in parts.members if member.description.lr is not None]
    differ = f"; learning rates differ by {max(rates) / min(rates):.3g}x" if rates and max(rates) > min(rates) else ""
    return (
        f"members were trained too far apart ({found}{differ}). "
        "Try strategy=weight_fusion/greedy_soup, strategy=weight_fusion/wise_ft or an output_fusion strategy."
    )


def _geometry(context: Context, parts: Parts) -> dict[str, Any]:
    """Norms, cosines and sign conflicts: of task vectors where the members have a known start, else of weights."""
    base = context.base_models.base
    start: dict[str, Tensor] | None = None
    if base is not None and all(key in base.state for key in parts.states[0]):
        start = {key: base.state[key] for key in parts.states[0]}
    total, *tensors = geometry(parts.states, start)
    return {
        "vectors": "weights" if start is None else "task vectors",
        "cosines": total.cosines_KK.tolist(),
        "total": total.row(),
        "tensors": [tensor.row() for tensor in tensors],
    }


def _barrier(found: Sequence[Path]) -> dict[str, Any] | None:
    """The barriers of the first task's loss, or of each path's own tasks, and all paths; None where none was walked."""
    if not found:
        return None
    metric = next(iter(next(iter(found[0].scores.values()))))
    heights = [path.barrier(task, metric) for path in found for task in _judging(path, metric)]
    excesses = [excess for path in found if (excess := path.excess()) is not None]
    return {
        "metric": metric,
        "unit": "nats" if metric == "nll" else "in the target's units",
        "mean": sum(heights) / len(heights),
        "largest": max(heights),
        "excess": max(excesses, default=None),
        "paths": [path.row() for path in found],
    }


def _judging(path: Path, metric: str) -> list[str]:
    """The tasks whose barriers count: the first, or all that are judged by heads of their own; of one metric."""
    tasks = list(path.scores) if path.owners else list(path.scores)[:1]
    return [task for task in tasks if metric in path.scores[task]]


def _height(barrier: Mapping[str, Any]) -> str:
    if barrier["excess"] is None:
        return f"barrier {barrier['largest']:.2g} {barrier['unit']}, "
    return f"at best {barrier['excess']:.2g} {barrier['unit']} above their own losses between two members, "
