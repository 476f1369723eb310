"""The shape of every shipped network: one backbone, one head a task.

Dimensions in tensor names: N examples, F features, C outputs of a task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.types import DataError, Task

if TYPE_CHECKING:
    from transfuse.models.widths import WidthGroup

Groups = list[tuple[str, list[str]]]


class Head(nn.Module):
    """Features (N, F) to outputs (N, C) of one task.

    Classification and multi-label: logits `linear(x)`. Regression: `location + scale * linear(x)`, so that the network
    predicts in the targets' own units while its weights see targets of mean 0 and deviation 1.

    Args:
        features: F.
        task: what to predict; `location` and `scale` of a regression task are (C,), or empty for 0 and 1.
    """

    location: Tensor | None
    scale: Tensor | None

    def __init__(self, features: int, task: Task) -> None:
        super().__init__()
        self.linear = nn.Linear(features, task.outputs)
        regression = task.kind == "regression"
        self.register_buffer("location", _per_target(task, "location", 0.0) if regression else None)
        self.register_buffer("scale", _per_target(task, "scale", 1.0) if regression else None)

    def forward(self, features_NF: Tensor) -> Tensor:
        """Outputs (N, C)."""
        outputs_NC: Tensor = self.linear(features_NF)
        if self.location is None or self.scale is None:
            return outputs_NC
        # y = location + scale * (W x + b)
        return self.location + self.scale * outputs_NC


class Backbone(nn.Module):
    """Inputs (N, ...) to features (N, F): stem, then stages in order, then neck.

    Args:
        stem: prepares the inputs (flatten, first convolution, patch embedding).
        stages: the parts that repeat, from input to output.
        neck: the last stage's output to features (N, F).
        features: F.
    """

    def __init__(self, *, stem: nn.Module, stages: Sequence[nn.Module], neck: nn.Module, features: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.neck = neck
        self.features = features

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (N, F)."""
        hidden = self.stem(inputs)
        for stage in self.stages:
            hidden = stage(hidden)
        features_NF: Tensor = self.neck(hidden)
        return features_NF


class Grouped(nn.Module, ABC):
    """A network that knows its parameters from input to head."""

    @abstractmethod
    def groups(self) -> Groups:
        """Parameter names from input to head; each parameter is in exactly one group, the last of which is the head."""


class Network(Grouped):
    """A backbone shared by all tasks and one head a task.

    Args:
        backbone: inputs (N, ...) to features (N, F).
        heads: task name -> `Head`; state dict keys are `backbone.*` and `heads.<task>.*`.

    Attributes:
        widths: who writes and reads each width, where that is known: see `transfuse.models.widths`.
    """

    def __init__(self, backbone: Backbone, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.widths: tuple[WidthGroup, ...] | None = None

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task name -> (N, C) logits, or values in the targets' own units."""
        features_NF = self.backbone(inputs)
        return {name: head(features_NF) for name, head in self.heads.items()}

    def groups(self) -> Groups:
        """Parameter names from input to head; each parameter is in exactly one group.

        Groups are `stem`, `stages.0`, `stages.1`, ..., `neck`, `head`; those without parameters are left out. `head`
        holds the heads of all tasks and is always last.
        """
        groups = [(name, _parameter_names(f"backbone.{name}", part)) for name, part in self._parts()]
        groups.append(("head", _parameter_names("heads", self.heads)))
        return [(name, parameters) for name, parameters in groups if parameters]

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        yield "stem", self.backbone.stem
        for index, stage in enumerate(self.backbone.stages):
            yield f"stages.{index}", stage
        yield "neck", self.backbone.neck


def with_heads(backbone: Backbone, tasks: tuple[Task, ...]) -> Network:
    """The network of this backbone with a fresh head for each task, in order."""
    heads = nn.ModuleDict()
    for task in tasks:
        try:
            heads.add_module(task.name, Head(backbone.features, task))
        except KeyError as error:  # empty, with a dot, or an attribute of nn.ModuleDict such as `type`
            raise DataError(f"A task cannot be named `{task.name}`: {error.args[0]}. Choose another name.") from error
    if len(heads) != len(tasks):
        raise DataError(f"Task names should be unique. Found {[task.name for task in tasks]}.")
    return Network(backbone, heads)


def head_names(network: nn.Module) -> frozenset[str]:
    """State dict keys of the head: the parameters of the last group, and the buffers that belong to them alone.

    A buffer belongs to the parameters of the nearest module around it that has any. Empty for a module that declares no
    groups: there, nothing says which part is the head.

    Example:
        >>> network = build_mlp(input_shape=(4,), tasks=(Task(name="y", kind="classification", outputs=3),))
        >>> sorted(head_names(network))
        ['heads.y.linear.bias', 'heads.y.linear.weight']
    """
    groups = network.groups() if isinstance(network, Grouped) else []
    if not groups:
        return frozenset()
    own = {id(network.get_parameter(name)) for name in groups[-1][1]}
    parameters = dict(network.named_parameters(remove_duplicate=False))  # tied ones under each of their names
    head = {name for name, parameter in parameters.items() if id(parameter) in own}
    buffers = {name for name, _ in network.named_buffers() if _around(name, parameters) <= head}
    return frozenset((head | buffers) & network.state_dict().keys())


def _around(buffer: str, parameters: Iterable[str]) -> set[str]:
    """The parameters of the nearest module around a buffer that has any."""
    module = buffer
    while module:
        module = module.rpartition(".")[0]
        found = {name for name in parameters if name.startswith(f"{module}." if module else "")}
        if found:
            return found
    return set()


def _parameter_names(prefix: str, module: nn.Module) -> list[str]:
    return [f"{prefix}.{name}" for name, _ in module.named_parameters()]


def _per_target(task: Task, field: str, default: float) -> Tensor:
    values = {"location": task.location, "scale": task.scale}[field] or (default,) * task.outputs
    if len(values) != task.outputs:
        raise DataError(
            f"`{field}` of task `{task.name}` should have one entry for each of its {task.outputs} targets. "
            f"Found {len(values)}."
        )
    return torch.tensor(values, dtype=torch.float32)
