"""Shared by the tests of weight fusions: state dicts over many shapes, the methods, and toy pools of base models.

A new per-tensor method adds one line to `cases.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.strategy.weight_fusion.cases import CASES, Case
from transfuse.base_models.model import BaseModel, BaseModels, Description, MemberDescription
from transfuse.models.architecture import Architecture
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.models.predict import predict
from transfuse.strategy.base import Context
from transfuse.training.settings import Training
from transfuse.types import Development, Split, SplitName, Task

SIZES = (0, 1, 2, 7, 99, 100, 101)


def random_state(index: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Many sizes, a 0-d tensor, a transposed view, a tie, a leaf boundary, BatchNorm and integer buffers."""
    stream = np.random.default_rng(index)

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(np.asarray(stream.normal(size=shape))).to(dtype)

    state = {f"sizes.{size}": draw(size) for size in SIZES}
    state["scalar"] = draw()
    state["matrix"] = draw(5, 3).T
    state["large"] = draw(65_536 + 3)
    state["embedding"] = draw(4, 6)
    state["tied"] = state["embedding"]
    state["norm.weight"] = draw(3)
    state["norm.running_mean"] = draw(3)
    state["norm.running_var"] = draw(3).abs() + 0.1
    state["norm.num_batches_tracked"] = torch.tensor(7 + index)
    state["position_ids"] = torch.arange(6)
    state["mask"] = torch.tensor([True, False])
    return state


def cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    cast_state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    return cast_state | {"tied": cast_state["embedding"]}


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {
        key: value.clone().requires_grad_() if value.is_floating_point() else value for key, value in state.items()
    }
    return state | {"tied": state["embedding"]}


INPUTS: dict[str, Callable[[int], dict[str, Tensor]]] = {
    "float32": random_state,
    "float64": lambda index: random_state(index, torch.float64),
    "bfloat16": lambda index: random_state(index, torch.bfloat16),
    "float16": lambda index: random_state(index, torch.float16),
    "mixed": lambda index: cast(random_state(index), (torch.bfloat16, torch.float32, torch.float64)[index % 3]),
    "requires_grad": lambda index: parameters(random_state(index)),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=INPUTS)
def make_state(request: pytest.FixtureRequest) -> Callable[[int], dict[str, Tensor]]:
    return INPUTS[request.param]


def _digest(state: dict[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for key, value in state.items():
        whole.update(f"{key} {value.dtype} {tuple(value.shape)} {value.stride()} {value.data_ptr()}".encode())
        whole.update(value.detach().double().numpy().tobytes())
    return whole.hexdigest()


@pytest.fixture
def digest() -> Callable[[dict[str, Tensor]], str]:
    """SHA-256 over keys, types, shapes, places and bytes."""
    return _digest


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parents[2] / "golden" / "weight_fusion"


TASK = Task(name="y", kind="classification", outputs=3)
FEATURES, HIDDEN = 4, 8


def blobs(num_examples: int, seed: int, tasks: Sequence[Task] = (TASK,), noise: float = 0.7) -> Split:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_examples) % 3
    inputs = nn.functional.one_hot(labels, FEATURES).float() + noise * torch.randn(
        num_examples, FEATURES, generator=stream
    )
    return Split(
        inputs=inputs,
        targets={task.name: (labels + shift) % 3 for shift, task in enumerate(tasks)},
        ids=torch.arange(num_examples),
    )


def development(tasks: Sequence[Task] = (TASK,)) -> Development:
    return Development(
        name="blobs",
        tasks=tuple(tasks),
        train=blobs(70, 1, tasks),
        validation=blobs(60, 2, tasks),
        fingerprint="0",
    )


def toy_network(seed: int, tasks: Sequence[Task] = (TASK,), batch_norm: bool = False) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stage = [nn.Linear(FEATURES, HIDDEN), *([nn.BatchNorm1d(HIDDEN)] if batch_norm else []), nn.ReLU()]
        backbone = Backbone(stem=nn.Flatten(), stages=[nn.Sequential(*stage)], neck=nn.Identity(), features=HIDDEN)
        return with_heads(backbone, tuple(tasks)).eval()


def train(network: Network, data: Split, seed: int, steps: int = 40, lr: float = 0.05) -> Network:
    """Full-batch Adam on a bootstrap sample."""
    stream = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(data), (len(data),), generator=stream)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for _ in range(steps):
        outputs = network(data.inputs[chosen])
        loss = sum(nn.functional.cross_entropy(outputs[name], data.targets[name][chosen]) for name in outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


class MemoryModels(BaseModels):
    """A pool of networks that are there already."""

    def __init__(self, networks: Sequence[Network], data: Development, start: Network | None = None) -> None:
        self.networks, self.data, self.start = list(networks), data, start
        members = tuple(self._describe(index, network) for index, network in enumerate(networks))
        self.description = Description(recipe="memory", members=members, has_base=start is not None)

    def _describe(self, index: int, network: Network) -> MemberDescription:
        return MemberDescription(
            name=f"memory-{index}", key=str(index), architecture="toy", layout="{}", tasks=tuple(network.heads)
        )

    def _model(self, description: MemberDescription, network: Network) -> BaseModel:
        outputs, split = predict(network, self.data.validation.inputs), self.data.validation
        tasks = [task for task in self.data.tasks if task.name in network.heads]
        batch_norm = any(isinstance(module, nn.BatchNorm1d) for module in network.modules())
        return BaseModel(
            description=description,
            architecture=Architecture(name="toy", recipe={}, make=toy_network),
            state=network.state_dict(),
            build=lambda: toy_network(0, tasks, batch_norm),
            validation={
                name: {"nll": float(nn.functional.cross_entropy(values, split.targets[name]))}
                for name, values in outputs.items()
            },
            seconds=0.0,
            trained_here=False,
        )

    def __getitem__(self, index: int) -> BaseModel:
        return self._model(self.description.members[index], self.networks[index])

    @property
    def base(self) -> BaseModel | None:
        if self.start is None:
            return None
        return self._model(self._describe(-1, self.start), self.start)

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        outputs = [predict(network, self.data.split(split).inputs) for network in self.networks]
        return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}

    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        raise AssertionError("given networks cannot be trained again")

    def fold_pools(self, folds_N: Tensor) -> tuple[BaseModels, ...]:
        raise AssertionError("given networks cannot be trained again")

    def used(self) -> tuple[BaseModel, ...]:
        return tuple(self)


def _no_training(*args: object, **kwargs: object) -> None:
    raise AssertionError("a weight fusion trains nothing")


def make_context(networks: Sequence[Network], data: Development, start: Network | None = None) -> Context:
    return Context(
        development=data,
        base_models=MemoryModels(networks, data, start),
        architecture=Architecture(name="toy", recipe={}, make=toy_network),
        training=Training(epochs=1, batch_size=16),
        fit=_no_training,  # type: ignore[arg-type]
        seed=0,
        selection_metric="nll",
    )


@dataclass(frozen=True)
class Toys:
    """What the tests of `apply` build their pools from."""

    development: Callable[..., Development] = development
    network: Callable[..., Network] = toy_network
    train: Callable[..., Network] = train
    context: Callable[..., Context] = make_context
    task: Task = TASK

    def finetuned(self, count: int, data: Development, batch_norm: bool = False) -> tuple[Network, list[Network]]:
        """A start, and members that were trained on from it."""
        start = train(toy_network(0, data.tasks, batch_norm), data.train, seed=0, steps=20)
        members = []
        for index in range(count):
            member = toy_network(0, data.tasks, batch_norm)
            member.load_state_dict(start.state_dict())
            members.append(train(member, data.train, seed=10 + index))
        return start, members

    def with_metric(self, context: Context, metric: str) -> Context:
        return replace(context, selection_metric=metric)


@pytest.fixture
def toys() -> Toys:
    return Toys()
