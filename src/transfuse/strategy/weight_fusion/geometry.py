"""How models lie to each other in weight space: norms, cosines and sign conflicts, tensor by tensor and in total.

Dimensions in tensor names: K models, B elements of a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transfuse.leaves import gram, leaves, pairwise_sum
from transfuse.state_dict import StateDict, batch_norm_statistics, tied_keys


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Inner products and sign conflicts of K vectors over one tensor, or over all.

    Attributes:
        name: of the tensor; `all` for the total.
        elements: number of elements.
        gram_KK: (K, K) float64 inner products.
        conflicts: elements at which two non-zero entries have opposite signs.
        shared: elements at which at least two entries are not zero.
        base_norm: of the base, where the vectors are task vectors.
    """

    name: str
    elements: int
    gram_KK: Tensor
    conflicts: int
    shared: int
    base_norm: float | None

    @property
    def norms_K(self) -> Tensor:
        """(K,) float64 Euclidean norms."""
        return self.gram_KK.diagonal().sqrt()

    @property
    def cosines_KK(self) -> Tensor:
        """(K, K) float64 `<x_i, x_j> / (|x_i| |x_j|)`; 0 where a vector is 0."""
        norms_K = self.norms_K
        return self.gram_KK / (norms_K[:, None] * norms_K[None, :]).clamp_min(torch.finfo(torch.float64).tiny)

    @property
    def mean_cosine(self) -> float | None:
        """Mean over pairs; None for fewer than two models."""
        num_models = len(self.gram_KK)
        if num_models < 2:
            return None
        first, second = torch.triu_indices(num_models, num_models, offset=1)
        return float(self.cosines_KK[first, second].mean())

    @property
    def sign_conflict(self) -> float | None:
        """Share of the elements with at least two non-zero entries at which signs disagree; None without any."""
        return self.conflicts / self.shared if self.shared else None

    def row(self) -> dict[str, Any]:
        """What a table says of the tensor."""
        return {
            "name": self.name,
            "elements": self.elements,
            "norms": [round(norm, 6) for norm in self.norms_K.tolist()],
            "base_norm": self.base_norm,
            "mean_cosine": self.mean_cosine,
            "sign_conflict": self.sign_conflict,
        }


def geometry(state_dicts: Sequence[StateDict], base: StateDict | None = None) -> tuple[Geometry, ...]:
    """The total first, then every floating tensor but BatchNorm's statistics, in the first model's order.

    Args:
        state_dicts: K of one layout, finite.
        base: what they started from: the vectors are then the task vectors `x_i - b`, else the weights.

    Example:
        >>> total, weight = geometry([{"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, -4.0])}])
        >>> total.norms_K.tolist(), total.sign_conflict
        ([5.0, 5.0], 0.5)
    """
    means = batch_norm_statistics(state_dicts[0])
    left_out = {*means, *means.values(), *tied_keys(state_dicts)}
    parts = [
        _of_tensor(key, [state[key] for state in state_dicts], None if base is None else base[key])
        for key, value in state_dicts[0].items()
        if value.is_floating_point() and key not in left_out
    ]
    return (_total(parts, len(state_dicts)), *parts)


def _of_tensor(key: str, values_K: Sequence[Tensor], base: Tensor | None) -> Geometry:
    flat_K = [value.detach().reshape(-1) for value in values_K]
    start = None if base is None else base.detach().reshape(-1)
    grams = [torch.zeros(len(flat_K), len(flat_K), dtype=torch.float64)]
    squares = [torch.zeros((), dtype=torch.float64)]
    conflicts = shared = 0
    for leaf in leaves(flat_K[0].numel()):
        vectors_KB = torch.stack([value[leaf].double() for value in flat_K])
        if start is not None:
            vectors_KB -= start[leaf].double()
            squares.append(start[leaf].double().square().sum().cpu())
        grams.append(gram(list(vectors_KB)))
        positive_B, negative_B = (vectors_KB > 0).sum(0), (vectors_KB < 0).sum(0)
        conflicts += int(((positive_B > 0) & (negative_B > 0)).sum())
        shared += int((positive_B + negative_B > 1).sum())
    return Geometry(
        name=key,
        elements=flat_K[0].numel(),
        gram_KK=pairwise_sum(grams),
        conflicts=conflicts,
        shared=shared,
        base_norm=None if start is None else float(pairwise_sum(squares).sqrt()),
    )


def _total(parts: Sequence[Geometry], num_models: int) -> Geometry:
    base_norms = [part.base_norm for part in parts if part.base_norm is not None]
    return Geometry(
        name="all",
        elements=sum(part.elements for part in parts),
        gram_KK=pairwise_sum(
            [torch.zeros(num_models, num_models, dtype=torch.float64), *(part.gram_KK for part in parts)]
        ),
        conflicts=sum(part.conflicts for part in parts),
        shared=sum(part.shared for part in parts),
        base_norm=sum(norm**2 for norm in base_norms) ** 0.5 if base_norms else None,
    )
