"""One intercepted call of a PyTorch function, as the rules of alignment see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transfuse.alignment.axes import Axes, fix, still

_OPERATORS = frozenset({"add", "sub", "mul", "truediv", "div", "pow", "matmul", "floordiv", "mod", "and", "or", "xor"})


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call under way.

    Attributes:
        name: of the function, without the marks of in-place and operator forms: `Tensor.add_` is `add`.
        args: positional arguments.
        kwargs: named arguments.
        result: what the function returned.
        place: for messages, such as `sort in backbone.neck`.
        axes_of: the axes of a tensor.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    place: str
    axes_of: Callable[[Tensor], Axes]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by its position or its name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    def axes(self, position: int, name: str = "input") -> Axes | None:
        """The axes of a tensor argument; None where there is none."""
        value = self.argument(position, name)
        return self.axes_of(value) if isinstance(value, Tensor) else None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [*tensors_in(self.args), *tensors_in(self.kwargs)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return tuple(self.result.shape) if isinstance(self.result, Tensor) else ()

    def give_up(self) -> list[Axes]:
        """Fixes every axis of every argument; the axes of the results are fixed too."""
        for tensor in self.tensors:
            for axis in self.axes_of(tensor):
                fix(axis, self.place)
        return [tuple(still(size, self.place) for size in tensor.shape) for tensor in tensors_in(self.result)]


Rule = Callable[[Call], Sequence[Axes] | None]  # the axes of every tensor of the result; None: not known


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def plain_name(function: Any) -> str:
    """`Tensor.__iadd__`, `Tensor.add_` and `torch.add` are `add`; the getter of `Tensor.T` is `T`.

    Example:
        >>> import torch
        >>> plain_name(torch.Tensor.relu_), plain_name(torch.Tensor.__rsub__)
        ('relu', 'sub')
    """
    name = str(function.__name__) if function.__name__ != "__get__" else str(function.__self__.__name__)
    if name.startswith("__") and name.endswith("__"):
        bare = name.strip("_")
        return bare[1:] if bare[:1] in "ir" and bare[1:] in _OPERATORS else bare
    return name.rstrip("_") if name != "_" else name
