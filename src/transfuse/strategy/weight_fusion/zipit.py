"""`weight_fusion/zipit`: units that respond alike are merged, across models and within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from transfuse.alignment import (
    ActivationMatching,
    NothingToAlignError,
    Specification,
    Zipped,
    check_zip,
    incoming,
    specify,
    unit_correlations,
    zip_states,
    zip_units,
)
from transfuse.base_models.model import Description
from transfuse.randomness import make_generator
from transfuse.state_dict import check_finite
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.aligned import Aligned, described
from transfuse.strategy.weight_fusion.base import WeightFusion, predictions
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.measuring import check_examples
from transfuse.strategy.weight_fusion.parts import Parts, heads_apart, take_apart
from transfuse.strategy.weight_fusion.permuted import specifications
from transfuse.strategy.weight_fusion.selection import HEADS
from transfuse.strategy.weight_fusion.uniform_soup import UniformSoup
from transfuse.types import Development, HyperparameterError

_TRACED = 4  # examples


@dataclass(frozen=True, kw_only=True)
class ZipIt(WeightFusion):
    """`W = sum_i M_out,i W_i U_in,i`, M_i averages the units of a group and U_i copies a group to its units.

    The units of all models are grouped by the correlation of their activations on training inputs, into as many groups
    as one model has units (see `zip_units`). A group may hold several units of one model and none of another.
    Classes and inputs stay: there models are averaged. A residual stream has one grouping. Units of layers that `only`
    or `skip` leave out are not grouped; what is left out comes from the first model, and reads groups.

    Attributes:
        within: whether units of one model may be merged. False: units are permuted onto those of the best model, by
            activation matching, and averaged; this suits attention too.
        examples: training inputs whose activations are compared, at least 2; all, where there are fewer.
        alpha: discount of groups that have as many units as there are models, or more, in (0, 1].
        beta: the share of merges that may be within a model, in [0, 1].

    Example:
        >>> ZipIt(alpha=0.1, beta=0.0).name
        'weight_fusion/zipit'

    Reference:
        Stoica et al. 2024, "ZipIt! Merging Models from Different Tasks without Training", 2305.03053. Differs from the
        paper: all layers are zipped, and similarity is the mean over the places where a unit occurs.
    """

    needs: ClassVar[str] = "the networks, whose units' activations are compared"
    align_models: ClassVar[bool] = False

    within: bool = True
    examples: int = 1024
    alpha: float = 0.3
    beta: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        check_examples(self.examples)
        if self.examples < 2:
            raise HyperparameterError(f"`examples` should be >= 2. Found `examples = {self.examples}`.")
        if not 0 < self.alpha <= 1:
            raise HyperparameterError(f"`alpha` should be in (0, 1]. Found `alpha = {self.alpha}`.")
        if not 0 <= self.beta <= 1:
            raise HyperparameterError(f"`beta` should be in [0, 1]. Found `beta = {self.beta}`.")
        if self.batch_norm != "reestimate":
            raise HyperparameterError(
                f"`batch_norm` should be reestimate where units are merged: the statistics of a mixture are none of "
                f"theirs. Found `batch_norm = {self.batch_norm}`."
            )

    def check(self, development: Development, base_models: Description) -> None:
        """What averaging asks, and units that groups can stand for."""
        super().check(development, base_models)
        if not self.within:
            self._permuted().check(development, base_models)
        elif base_models.build is not None:
            network, inputs = base_models.build().eval(), development.train.inputs[:_TRACED]
            specification = specify(network, inputs, make_generator(0, "align/trial"))
            keys = list(network.state_dict())
            if heads_apart(base_models.members, self.fuse):
                keys = [key for key in keys if not key.startswith(HEADS)]
            made = incoming(network, specification, inputs)
            check_zip(specification, made)
            _units(specification, made.keys, self.selection.of(keys))

    def apply(self, context: Context) -> FusedModel:
        """Groups the units of all members, and merges each group."""
        if not self.within:
            return self._permuted().apply(context)
        parts = take_apart(context, with_base=False, fuse=self.fuse)
        for key in (key for key, value in parts.states[0].items() if value.is_floating_point()):
            check_finite([state[key] for state in parts.states], key, parts.names)
        specs = specifications(context, None)
        models = _models(context, parts, specs)
        sources = self._sources(parts)
        own = frozenset(key for key, indices in sources.items() if len(indices) == len(models))
        names = _units(specs[0], models[0].made.keys, own)
        groups, found = self._groups(context, parts, specs, names)
        fused = zip_states(models, groups, sources)
        network, batch_norm = self.settle(context, parts, fused, len(models))
        scores = validation_scores(context, predictions(context, network))
        diagnostics = describe(context, parts, {key: fused[key] for key in parts.states[0]}, batch_norm)
        return FusedModel(
            network=network,
            validation=scores,
            members=tuple(range(len(models))),
            weights={task.name: [1 / len(models)] * len(models) for task in context.development.tasks},
            diagnostics={
                **diagnostics,
                "align": {"matcher": "zipit", "groups": found, **described(specs)},
                "verdict": verdict(context, parts, scores, diagnostics),
            },
        )

    def _permuted(self) -> Aligned:
        soup = UniformSoup(batch_norm=self.batch_norm, fuse=self.fuse, only=self.only, skip=self.skip)
        return Aligned(inner=soup, matcher=ActivationMatching(examples=self.examples))

    def _sources(self, parts: Parts) -> dict[str, Sequence[int]]:
        """Key -> the models that it is made of: all, the first where it is left out, its owner where heads are own."""
        chosen, everyone = self.selection.of(parts.states[0]), range(len(parts.members))
        found: dict[str, Sequence[int]] = {key: everyone if key in chosen else (0,) for key in parts.states[0]}
        for task, owner in parts.heads.items():
            found |= {key: (owner,) for key in parts.members[owner].state if key.startswith(f"{HEADS}{task}.")}
        return found

    def _groups(
        self, context: Context, parts: Parts, specs: Sequence[Specification], names: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The groups of each symbol's units, and what they are, for the record."""
        train, num_models = context.development.train.inputs, len(parts.members)
        chosen = torch.randperm(len(train), generator=context.generator("weight_fusion/statistics"))[: self.examples]
        correlations = unit_correlations(specs, [member.network() for member in parts.members], train[chosen])
        groups = {
            name: zip_units(correlations[name], num_models, alpha=self.alpha, beta=self.beta)
            for name in names
            if name in correlations
        }
        return groups, {name: _described(groups_KU, correlations[name]) for name, groups_KU in groups.items()}


def _models(context: Context, parts: Parts, specs: Sequence[Specification]) -> list[Zipped]:
    inputs = context.development.train.inputs[:_TRACED]
    models = [
        Zipped(
            index=index,
            specification=specification,
            made=incoming(member.network(), specification, inputs),
            state=member.state,
        )
        for index, (member, specification) in enumerate(zip(parts.members, specs, strict=True))
    ]
    for model in models:
        check_zip(model.specification, model.made)
    return models


def _units(specification: Specification, made: Mapping[str, frozenset[str]], fused: frozenset[str]) -> list[str]:
    """Symbols all of whose tensors are fused: those of tensors that are left out stay as they are."""
    names = [name for name in specification.symbols if made[name] and made[name] <= fused]
    if not names:
        raise NothingToAlignError(
            f"Units that a tensor left out by `fuse`, `only` or `skip` makes stay where they are. Found no others: "
            f"{', '.join(specification.symbols)}. Did you mean strategy=weight_fusion/uniform_soup?"
        )
    return names


def _described(groups_KU: Tensor, correlation_JJ: Tensor) -> dict[str, Any]:
    """How many groups hold units of all models, of one alone, and how alike the units of a group are."""
    num_units = groups_KU.shape[1]
    counts_KU = torch.stack([group_U.bincount(minlength=num_units) for group_U in groups_KU])
    present_U = (counts_KU > 0).sum(dim=0)
    group_J = groups_KU.flatten()
    pairs_JJ = (group_J[:, None] == group_J).fill_diagonal_(False)
    return {
        "units": num_units,
        "of_all_models": int((present_U == len(groups_KU)).sum()),
        "of_one_model": int((present_U == 1).sum()),
        "correlation": float(correlation_JJ[pairs_JJ].mean()) if bool(pairs_JJ.any()) else None,
    }
