"""`weight_fusion/merge_many`: no model is the reference; each is matched with the mean of the others.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.alignment import Specification, match_weights, squared_distance
from transfuse.alignment.matcher import require_positive
from transfuse.base_models.model import Description
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.aligned import described
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.permuted import PermutedModels, check_held, specifications
from transfuse.strategy.weight_fusion.uniform_soup import UniformSoup
from transfuse.types import Development

_LEAST_GAIN = 1e-12


def match_many(
    specs: Sequence[Specification],
    states: Sequence[Mapping[str, Tensor]],
    generator: torch.Generator,
    *,
    max_sweeps: int = 100,
) -> tuple[list[dict[str, Tensor]], int]:
    """Permutes each model to match the mean of the others, in random order, until no permutation changes.

    Each step lowers `sum_ij ||x_i - x_j||^2`, so that it ends.

    Args:
        specs: one a model.
        states: K state dicts; not changed.
        generator: of the models' order.
        max_sweeps: passes over the models at most.

    Returns:
        The permuted state dicts, and how many sweeps were made.

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, 2209.04836, algorithm 2.
    """
    found = [dict(state) for state in states]
    if len(found) < 2:
        return found, 0
    for sweep in range(1, max_sweeps + 1):
        changed = False
        for index in torch.randperm(len(found), generator=generator).tolist():
            mean = _mean([state for other, state in enumerate(found) if other != index])
            permutation = match_weights(specs[index], mean, found[index], generator)
            permuted = specs[index].apply(found[index], permutation)
            before, after = squared_distance(mean, found[index]), squared_distance(mean, permuted)
            if after < before * (1 - _LEAST_GAIN):
                found[index], changed = permuted, True
        if not changed:
            return found, sweep
    return found, max_sweeps


@dataclass(frozen=True, kw_only=True)
class MergeMany(WeightFusion):
    """`x = mean_i P_i(x_i)`, with permutations that match each model with the mean of the others (see `match_many`).

    The soup of models that were trained independently, whatever their order.

    Attributes:
        spec: patterns of symbols -> `fixed`: units that stay where they are; None: all may move.
        max_sweeps: passes over the models at most, >= 1.

    Example:
        >>> MergeMany(max_sweeps=10).name
        'weight_fusion/merge_many'
    """

    needs: ClassVar[str] = "the networks, which tell what units may be permuted"
    align_models: ClassVar[bool] = False

    spec: Mapping[str, str] | None = None
    max_sweeps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_sweeps", self.max_sweeps)

    def check(self, development: Development, base_models: Description) -> None:
        """What every weight fusion asks, and names of units that exist."""
        super().check(development, base_models)
        check_held(development, base_models, self.spec)

    def apply(self, context: Context) -> FusedModel:
        """Permutes and averages."""
        members = tuple(context.base_models)
        specs = specifications(context, self.spec)
        states = [member.state for member in members]
        permuted, sweeps = match_many(specs, states, context.generator("align"), max_sweeps=self.max_sweeps)
        soup = UniformSoup(batch_norm=self.batch_norm, fuse=self.fuse, only=self.only, skip=self.skip)
        fused = soup.apply(replace(context, base_models=PermutedModels(context.base_models, permuted)))
        found = {
            "matcher": "merge_many",
            "sweeps": sweeps,
            "squared_distance_before": _spread(states),
            "squared_distance": _spread(permuted),
            **described(specs),
        }
        return replace(fused, diagnostics={**fused.diagnostics, "align": found})


def _mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of each floating tensor over the models that have it, in float64."""
    keys = dict.fromkeys(key for state in states for key, value in state.items() if value.is_floating_point())
    return {key: torch.stack([state[key].double() for state in states if key in state]).mean(dim=0) for key in keys}


def _spread(states: Sequence[Mapping[str, Tensor]]) -> float | None:
    """Mean squared distance over pairs; None for one model."""
    pairs = list(combinations(states, 2))
    return sum(squared_distance(*pair) for pair in pairs) / len(pairs) if pairs else None
