"""A pool of given networks and a context around it, without a store or a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModel, BaseModels, Description, MemberDescription
from transfuse.models.predict import predict
from transfuse.randomness import make_generator
from transfuse.strategy.base import Context
from transfuse.training.settings import Training
from transfuse.types import Development, Split, SplitName, Task


class Heads(nn.Module):
    """Inputs (N, F) to one linear map a task."""

    def __init__(self, tasks: Sequence[Task], features: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({task.name: nn.Linear(features, task.outputs) for task in tasks})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {name: head(inputs) for name, head in self.heads.items()}


class GivenPool(BaseModels):
    """Base models that are already there."""

    def __init__(self, networks: Sequence[nn.Module], development: Development) -> None:
        self.networks = networks
        self.development = development
        self.description = describe(development.tasks, len(networks))

    def __getitem__(self, index: int) -> BaseModel:
        return BaseModel(
            description=self.description.members[index],
            architecture=cast(Any, None),
            state=self.networks[index].state_dict(),
            build=lambda: Heads(self.development.tasks, self.development.input_shape[0]),
            validation={},
            seconds=0.0,
            trained_here=False,
        )

    @property
    def base(self) -> None:
        return None

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        outputs = [predict(network, self.development.split(split).inputs) for network in self.networks]
        return {task.name: torch.stack([output[task.name] for output in outputs]) for task in self.development.tasks}

    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        raise AssertionError("given networks cannot be trained again")

    def fold_pools(self, folds_N: Tensor) -> tuple[BaseModels, ...]:
        raise AssertionError("given networks cannot be trained again")

    def used(self) -> tuple[BaseModel, ...]:
        return tuple(self)


def describe(tasks: Sequence[Task], count: int, **fields: Any) -> Description:
    members = tuple(
        MemberDescription(
            name=f"given-{index}",
            key=str(index),
            architecture="linear",
            layout="{}",
            tasks=tuple(task.name for task in tasks),
            **fields,
        )
        for index in range(count)
    )
    return Description(recipe="given", members=members)


def make_development(tasks: Sequence[Task], *, examples: int = 60, features: int = 5) -> Development:
    """Targets depend linearly on the inputs, with noise."""
    generator = make_generator("development")
    inputs = torch.randn(examples, features, generator=generator)
    targets = {task.name: _targets(task, inputs, generator) for task in tasks}
    split = Split(inputs=inputs, targets=targets, ids=torch.arange(1000, 1000 + examples))
    return Development(name="given", tasks=tuple(tasks), train=split, validation=split, fingerprint="0")


def make_context(
    tasks: Sequence[Task], *, count: int = 4, development: Development | None = None, seed: int = 0
) -> Context:
    """A context with `count` networks of random weights."""
    development = development or make_development(tasks)
    networks = []
    for index in range(count):
        network = Heads(tasks, development.input_shape[0])
        generator = make_generator("network", index)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        networks.append(network)
    return Context(
        development=development,
        base_models=GivenPool(networks, development),
        architecture=cast(Any, None),
        training=Training(),
        fit=cast(Any, None),
        seed=seed,
        selection_metric="nll",
    )


def set_network(context: Context, index: int, weights: Mapping[str, Tensor]) -> None:
    """Gives one network of the pool other weights."""
    pool = cast(GivenPool, context.base_models)
    pool.networks[index].load_state_dict(weights)


def _targets(task: Task, inputs: Tensor, generator: torch.Generator) -> Tensor:
    signal = inputs @ torch.randn(inputs.shape[1], task.outputs, generator=generator)
    noisy = signal + torch.randn(signal.shape, generator=generator)
    if task.kind == "classification":
        return noisy.argmax(1)
    return (noisy > 0).float() if task.kind == "multilabel" else noisy
