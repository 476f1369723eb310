"""How the tasks of one network share its parameters: the contract, and the parts that several ways have in common.

Dimensions in tensor names: N examples, D flattened inputs, E experts, F features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from transfuse.models.network import Backbone, Grouped, Groups, Network
from transfuse.types import HyperparameterError, Task

Make = Callable[..., nn.Module]  # make(input_shape=..., tasks=...)
Shape = tuple[int, ...]


class Sharing(ABC):
    """A way to share. Concrete ones are frozen dataclasses of hyper-parameters, one a file, named like their config."""

    @property
    def name(self) -> str:
        """The config's stem, such as `mmoe`."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> nn.Module:
        """The network.

        Args:
            backbone: makes one with fresh weights, each time it is called.
            heads: one a task, in order.
            input_shape: of one input.
        """

    def build(self, make: Make, *, input_shape: Shape, tasks: tuple[Task, ...]) -> nn.Module:
        """The network for these tasks; for a single task the plain one, since there is nothing to share.

        Raises:
            HyperparameterError: `make` gives no network of one backbone and heads.
        """
        plain = make(input_shape=input_shape, tasks=tasks)
        if len(tasks) == 1:
            return plain
        if not isinstance(plain, Network):
            raise HyperparameterError(
                f"`sharing` needs a network of one backbone and a head a task. Found {type(plain).__name__}. "
                f"Did you mean sharing=hard?"
            )
        made = [plain.backbone]

        def backbone() -> Backbone:
            if made:
                return made.pop()
            other = make(input_shape=input_shape, tasks=tasks)
            assert isinstance(other, Network), "the same builder"
            return other.backbone

        return self.join(backbone, plain.heads, input_shape)


class SharedNetwork(Grouped, ABC):
    """Features of its own for each task, and one head a task.

    Args:
        heads: task name -> head, in order.
    """

    def __init__(self, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.heads = heads

    @abstractmethod
    def features(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Task name -> (N, F)."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task name -> (N, C) logits, or values in the targets' own units."""
        features = self.features(inputs)
        return {name: head(features[name]) for name, head in self.heads.items()}

    def groups(self) -> Groups:
        """`body`, all that is no head, and `head`."""
        names = [name for name, _ in self.named_parameters()]
        head = [name for name in names if name.startswith("heads.")]
        return [("body", [name for name in names if name not in set(head)]), ("head", head)]


class Gate(nn.Module):
    """`softmax(W x + b)`: how much of each expert an example takes.

    Args:
        inputs: D, numbers that the gate sees, flattened.
        experts: E.
    """

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, experts)

    def forward(self, seen: Tensor) -> Tensor:
        """(N, ...) to (N, E), rows sum to 1."""
        return torch.softmax(self.linear(seen.flatten(1)), dim=1)


def mix(weights_NE: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """`sum_e w_e x_e` for each example.

    Args:
        weights_NE: of the experts.
        experts: E tensors (N, ...) of one shape.

    Example:
        >>> mix(torch.tensor([[0.25, 0.75]]), [torch.tensor([[4.0]]), torch.tensor([[8.0]])])
        tensor([[7.]])
    """
    return torch.einsum("ne,en...->n...", weights_NE, torch.stack(list(experts)))


def shapes(backbone: Backbone, input_shape: Shape) -> list[Shape]:
    """Of one example: what the stem gives, then each stage. No weight, statistic or mode is changed."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    with torch.no_grad():
        hidden = backbone.stem(torch.zeros(1, *input_shape))
        found = [tuple(hidden.shape[1:])]
        for stage in backbone.stages:
            hidden = stage(hidden)
            found.append(tuple(hidden.shape[1:]))
    for module, training in modes.items():
        module.training = training
    return found


def numel(shape: Shape) -> int:
    """Numbers in one example."""
    return math.prod(shape)


def require_count(field: str, value: int, least: int = 1) -> None:
    """Raises `HyperparameterError` below `least`."""
    if value < least:
        raise HyperparameterError(f"`{field}` should be >= {least}. Found `{field} = {value}`.")
