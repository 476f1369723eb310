"""Weights of several networks whose units were grouped, as those of one network: what ZipIt does to them.

Dimensions in tensor names: K models, U units of each (groups too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.alignment.incoming import Incoming, unmixable
from transfuse.alignment.specification import Specification, View
from transfuse.types import IncompatibleStrategyError

Groups = Mapping[str, Tensor]  # symbol -> (K, U): the group of each unit


@dataclass(frozen=True, kw_only=True)
class Zipped:
    """One of the models.

    Attributes:
        index: its row in the groups.
        specification: of it.
        made: which of its tensors make units; all others read them.
        state: its weights.
    """

    index: int
    specification: Specification
    made: Incoming
    state: Mapping[str, Tensor]

    def moved(self, key: str, groups: Groups, share: float) -> Tensor:
        """This model's part of a tensor, in float64: `M_i W_i U_i`, or `share W_i U_i` where no units are made."""
        value = self.state[key].double()
        found = share * value
        for view in self.specification.views:
            if view.key == key:
                window = found[view.window]
                window.copy_(self._part(view, view.of(value), groups, share).reshape(window.shape))
        return found

    def _part(self, view: View, part: Tensor, groups: Groups, share: float) -> Tensor:
        for dim, name in enumerate(view.symbols):
            if name is None or name not in groups:
                continue
            group_U = groups[name][self.index]
            # U_i: the weights of units that are one now add up
            part = torch.zeros_like(part).index_add(dim, group_U, part)
            if view.key in self.made.keys[name]:
                # M_i: a group is the mean of its units
                sizes_U = groups[name].flatten().bincount(minlength=len(group_U)).double()
                part, share = part / sizes_U.reshape(-1, *[1] * (part.dim() - dim - 1)), 1.0
        return share * part


def zip_states(models: Sequence[Zipped], groups: Groups, sources: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """`W = sum_i M_out,i W_i U_in,i`, M_i averages the units of each group and U_i copies a group to its units.

    Biases, scales and shifts become `sum_i M_i b_i`. Along axes without groups (inputs, classes) models are averaged.

    Args:
        models: K; not changed.
        groups: of the units of each symbol; of those without, unit j of all models is one.
        sources: key -> the models that its tensor is made of: all of them, or the one whose own it stays, which then
            reads groups and makes no units that are grouped.

    Returns:
        The tensors of `sources`; integer ones are those of the first source.

    Reference:
        Stoica et al. 2024, 2305.03053, section 4.
    """
    found: dict[str, Tensor] = {}
    for key, indices in sources.items():
        first = models[indices[0]].state[key]
        if not first.is_floating_point():
            found[key] = first.clone()
            continue
        total = torch.zeros_like(first, dtype=torch.float64)
        for index in indices:
            total += models[index].moved(key, groups, 1 / len(indices))
        found[key] = total.to(first.dtype)
    return found


def check_zip(specification: Specification, made: Incoming) -> None:
    """Raises unless groups of units can stand for units.

    Attention multiplies units by each other, and units within blocks belong to their block. A tensor is either made of
    the rows of a group or read by them: not both, as a layer from a stream to itself or tied weights would be.

    Raises:
        IncompatibleStrategyError: with the units, calls or tensors.
    """
    found = unmixable(specification, made)
    views = specification.views
    twice = dict.fromkeys(
        view.key for view in views if any(view.symbols.count(name) > 1 for name in view.symbols if name)
    )
    tied = dict.fromkeys(view.key for view in views if view.key in specification.aliases.values())
    found += [f"layers from units to the same units ({', '.join(twice)})"] if twice else []
    found += [f"tied weights ({', '.join(tied)})"] if tied else []
    if found:
        raise IncompatibleStrategyError(
            f"Units are grouped across and within models, which attention heads and groups, layers from a stream to "
            f"itself and tied weights cannot follow. Found {' and '.join(found)}. Did you mean within=false?"
        )
