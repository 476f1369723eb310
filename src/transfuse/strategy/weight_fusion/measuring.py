"""Statistics of the base models that a method measures on training data, each member on data of its own tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModel, MemberDescription
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import HyperparameterError, Split, Task


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one member is measured on.

    Attributes:
        tasks: of the problem, those that the member has heads for.
        split: training examples.
    """

    tasks: tuple[Task, ...]
    split: Split


def measure_members(
    context: Context,
    parts: Parts,
    purpose: Mapping[str, object],
    num_examples: int,
    measure: Callable[[nn.Module, Sample], Mapping[str, Tensor]],
) -> Measured:
    """Statistics of all members, read from the store where they were measured before.

    Args:
        context: of the run.
        parts: the members; what is measured for tensors that are not fused is left out.
        purpose: all that the result depends on besides member, data and seed; JSON can hold it.
        num_examples: how many training examples, drawn by the run's seed; all of them where there are fewer.
        measure: of a member's network, in evaluation mode and its own to change: key -> tensor.
    """
    source = context.development.source
    described = {
        **purpose,
        "examples": num_examples,
        "seed": context.seed,
        "source": None if source is None else source.fingerprint,
    }

    def of(member: BaseModel) -> Mapping[str, Tensor]:
        return measure(member.network(), _sample(context, member.description, num_examples))

    found = context.base_models.statistics(json.dumps(described, sort_keys=True), of)
    fused = set(parts.states[0]).intersection(*found)
    return Measured(statistics=[{key: value for key, value in each.items() if key in fused} for each in found])


def check_examples(examples: int) -> None:
    """Raises `HyperparameterError` unless it is a whole number >= 1."""
    if not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
        raise HyperparameterError(f"`examples` should be a whole number >= 1. Found `examples = {examples}`.")


def _sample(context: Context, member: MemberDescription, num_examples: int) -> Sample:
    """Examples of the data that the member was trained on."""
    development = context.development
    if member.trained_on == "source":
        assert development.source is not None, "transfer problems have a source"
        development = development.source
    train = development.train
    order = torch.randperm(len(train), generator=context.generator("weight_fusion/statistics"))
    return Sample(
        tasks=tuple(task for task in development.tasks if task.name in member.tasks),
        split=train.select(order[:num_examples]),
    )
