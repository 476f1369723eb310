"""`model=custom`: a user's own `nn.Module`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transfuse.models.network import Grouped, Groups
from transfuse.models.predict import evaluating
from transfuse.types import ConfigError, Task


class Custom(Grouped):
    """A user's module behind the interface of `Network`.

    Args:
        module: maps inputs (N, ...) to a tensor (N, C), or to a dict task -> (N, C).
        task: name of the task that a tensor output belongs to; None where the module returns a dict itself.
    """

    def __init__(self, module: nn.Module, task: str | None) -> None:
        super().__init__()
        self.module = module
        self.task = task

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task name -> (N, C) logits, or values in the targets' own units."""
        outputs = self.module(inputs)
        return outputs if self.task is None else {self.task: outputs}

    def groups(self) -> Groups:
        """Parameter names by child of the module, in the order of its children; the last group counts as the head.

        A module that only wraps another one (`self.net = nn.Sequential(...)`) is grouped by the inner one's children.
        Parameters that the module itself owns come first, as `own`.
        """
        module, prefix = self.module, "module."
        while len(children := dict(module.named_children())) == 1 and not dict(module.named_parameters(recurse=False)):
            name, module = children.popitem()
            prefix += f"{name}."
        groups: dict[str, list[str]] = {}
        for name, _ in module.named_parameters():
            child, dot, _ = name.partition(".")
            groups.setdefault(child if dot else "own", []).append(prefix + name)
        return list(groups.items())


def build_custom(
    *,
    input_shape: tuple[int, ...],
    tasks: tuple[Task, ...],
    module: str,
    arguments: Mapping[str, Any] | None = None,
) -> Custom:
    """A user's own module, tried once on one example of zeros.

    Args:
        input_shape: of one input.
        tasks: what to predict.
        module: dotted path of a class or a function that makes an `nn.Module`, such as `my_package.nets.TinyNet`. With
            one task its output is a tensor (N, C); with any tasks it may be a dict task -> (N, C). Outputs are logits;
            for regression they are values in the targets' own units.
        arguments: keyword arguments of that class or function; None: none.

    Raises:
        ConfigError: when the module cannot be imported or built, or its output has another shape.
    """
    network = _make(module, arguments or {})
    expected = {task.name: (1, task.outputs) for task in tasks}
    found = _output_shapes(network, torch.zeros(1, *input_shape), module)
    single = len(tasks) == 1
    if single and found == (1, tasks[0].outputs):
        return Custom(network, tasks[0].name)
    if found != expected:
        wanted = f"a tensor of shape {(1, tasks[0].outputs)}" if single else f"a dict of tensors of shapes {expected}"
        raise ConfigError(
            f"model.module={module} should return {wanted} for one input of shape {tuple(input_shape)}. Found {found}."
        )
    return Custom(network, None)


def _make(path: str, arguments: Mapping[str, Any]) -> nn.Module:
    module_name, _, name = path.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"model.module={path} cannot be imported: {error}. It should be the dotted path of a class or function on "
            f"the Python path; PYTHONPATH=. adds the current folder."
        ) from error
    try:
        network = factory(**arguments)
    except Exception as error:
        raise ConfigError(f"model.module={path} cannot be built with {dict(arguments)}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model.module={path} should make a torch.nn.Module. Found {type(network).__name__}.")
    return network


def _output_shapes(network: nn.Module, example: Tensor, path: str) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of the tensor, or the shapes of the dict, that the module returns for one example."""
    try:
        with evaluating(network), torch.no_grad():
            outputs = network(example)
    except Exception as error:
        raise ConfigError(f"model.module={path} fails on an input of shape {tuple(example.shape)}: {error}.") from error
    if isinstance(outputs, Tensor):
        return tuple(outputs.shape)
    if isinstance(outputs, Mapping) and all(isinstance(output, Tensor) for output in outputs.values()):
        return {name: tuple(output.shape) for name, output in outputs.items()}
    raise ConfigError(
        f"model.module={path} should return a tensor or a dict of tensors. Found {type(outputs).__name__}."
    )
