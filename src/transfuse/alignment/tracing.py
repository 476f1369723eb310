"""Runs a network once and notes, for every tensor on the way, the axes that it has.

Every PyTorch function that the network calls is seen, whoever calls it: control flow, functional code and modules such
as nn.TransformerEncoderLayer need nothing of their own. Functions without a rule fix what they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transfuse.alignment import elementwise, layers, shapes
from transfuse.alignment.axes import Axes, find, fix, fresh, still
from transfuse.alignment.calls import Call, Rule, plain_name, tensors_in
from transfuse.models.predict import evaluating

RULES: Mapping[str, Rule] = {**elementwise.RULES, **shapes.RULES, **layers.RULES}
_SILENT = frozenset({"requires_grad", "detach", "data", "clone", "contiguous", "dropout"})  # make nothing new to record


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one run of a network has shown.

    Attributes:
        parameters: state dict key -> axes, for tensors that were used; one key of tied ones.
        calls: index of a call -> axes of the tensor that it returned.
    """

    parameters: Mapping[str, Axes]
    calls: Mapping[int, Axes]


@torch.no_grad()
def trace(network: nn.Module, inputs: Tensor) -> Trace:
    """Runs the network on a few examples.

    Args:
        network: in any mode; it is run in evaluation mode and not changed.
        inputs: (N, ...), N >= 2, so that examples are told from broadcast axes.
    """
    recorder = _Recorder(network)
    recorder.know(inputs, tuple(still(size, "input") for size in inputs.shape))
    with evaluating(network), _module_names(network) as where, recorder:
        recorder.where = where
        outputs = network(inputs)
    for output in tensors_in(outputs):
        for axis in recorder.axes_of(output):
            fix(axis, "output")
    return Trace(parameters=recorder.parameters, calls=recorder.calls)


@torch.no_grad()
def replay(network: nn.Module, inputs: Tensor, wanted: frozenset[int]) -> dict[int, Tensor]:
    """The tensors that the calls of these indices return, for these inputs."""
    listener = _Listener(wanted)
    with evaluating(network), listener:
        network(inputs)
    return listener.found


class _Listener(TorchFunctionMode):
    """Keeps the results of some calls."""

    def __init__(self, wanted: frozenset[int]) -> None:
        super().__init__()
        self.wanted = wanted
        self.found: dict[int, Tensor] = {}
        self._count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(True for _ in tensors_in(result)):
            if self._count in self.wanted:
                self.found[self._count] = next(tensors_in(result)).detach().clone()
            self._count += 1
        return result


class _Recorder(TorchFunctionMode):
    """Follows the axes of every tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        state = network.state_dict(keep_vars=True)
        self._names = {id(tensor): key for key, tensor in reversed(state.items())}  # the first name of tied ones
        self.parameters: dict[str, Axes] = {}
        self.calls: dict[int, Axes] = {}
        self.where: Callable[[], str] = str
        self._known: dict[int, Axes] = {}
        self._alive: list[Tensor] = []  # an id is that of one tensor only while the tensor lives
        self._count = 0

    def know(self, tensor: Tensor, axes: Axes) -> None:
        self._alive.append(tensor)
        self._known[id(tensor)] = axes

    def axes_of(self, tensor: Tensor) -> Axes:
        """Of a tensor on the way, of a parameter (free at first), or of a constant (fixed)."""
        if id(tensor) in self._known:
            return self._known[id(tensor)]
        key = self._names.get(id(tensor))
        if key is None:
            return tuple(still(size, f"a constant in {self.where() or 'the network'}") for size in tensor.shape)
        axes = tuple(fresh(size) for size in tensor.shape)
        self.parameters[key] = axes
        self.know(tensor, axes)
        return axes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, results = plain_name(func), list(tensors_in(result))
        if not results and name != "setitem":
            return result
        place = f"{name} in {self.where() or 'the network'}"
        call = Call(name=name, args=args, kwargs=kwargs or {}, result=result, place=place, axes_of=self.axes_of)
        for tensor, axes in zip(results, self._apply(call), strict=True):
            self.know(tensor, axes)
        if results:
            if name not in _SILENT:
                self.calls[self._count] = self.axes_of(results[0])
            self._count += 1
        return result

    def _apply(self, call: Call) -> list[Axes]:
        rule = RULES.get(call.name)
        if rule is None and all(find(axis).fixed for tensor in call.tensors for axis in self.axes_of(tensor)):
            return [tuple(still(size) for size in tensor.shape) for tensor in tensors_in(call.result)]
        found = None if rule is None else rule(call)
        if found is None:
            return call.give_up()
        assert [tuple(find(axis).size for axis in axes) for axes in found] == [
            tuple(tensor.shape) for tensor in tensors_in(call.result)
        ], f"the rule of {call.name} keeps track of shapes"
        return list(found)


@contextmanager
def _module_names(network: nn.Module) -> Iterator[Callable[[], str]]:
    """The path of the module that runs, while the network runs."""
    stack: list[str] = []
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            entered = module.register_forward_pre_hook(lambda *_, name=name: stack.append(name))
            left = module.register_forward_hook(lambda *_: stack.__delitem__(-1), always_call=True)
            hooks.callback(entered.remove)
            hooks.callback(left.remove)
        yield lambda: stack[-1] if stack else ""
