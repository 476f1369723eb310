"""Which tensors make a network's units: weights on the way into them, not those that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transfuse.alignment.calls import plain_name, tensors_in
from transfuse.alignment.specification import Specification
from transfuse.models.predict import evaluating

_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum", "inner", "dot", "mm"})


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """How units come about in one run of a network.

    Attributes:
        keys: symbol -> keys of the tensors that enter a call whose result has these units.
        order: symbols in the order in which they come about; those that no call returns come last.
        products: names of calls that multiply activations by each other and sum: attention.
    """

    keys: Mapping[str, frozenset[str]]
    order: tuple[str, ...]
    products: tuple[str, ...]


@torch.no_grad()
def incoming(network: nn.Module, specification: Specification, inputs: Tensor) -> Incoming:
    """Runs a network once and notes which of its tensors make which units.

    Args:
        network: in any mode; run in evaluation mode.
        specification: of it.
        inputs: (N, ...) as those that it was specified with.

    Example:
        >>> from transfuse.alignment import specify
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> specification = specify(network, torch.randn(2, 4), torch.Generator())
        >>> sorted(incoming(network, specification, torch.randn(2, 4)).keys["0.weight@0"])
        ['0.bias', '0.weight']
    """
    recorder = _Recorder(network)
    with evaluating(network), recorder:
        network(inputs)
    keys: dict[str, frozenset[str]] = {}
    for activation in specification.activations:
        for name in activation.symbols:
            if name is not None:
                keys[name] = keys.get(name, frozenset()) | recorder.entered[activation.call]
    unseen = {name: frozenset[str]() for name in specification.symbols if name not in keys}
    return Incoming(keys=keys | unseen, order=(*keys, *unseen), products=tuple(dict.fromkeys(recorder.products)))


def unmixable(specification: Specification, made: Incoming) -> list[str]:
    """What keeps means of units from standing for units, for a message; empty where nothing does."""
    blocks = [symbol.name for symbol in specification.symbols.values() if symbol.parent is not None]
    found = [f"units within blocks ({', '.join(blocks)})"] if blocks else []
    return [*found, f"activations multiplied by each other ({', '.join(made.products)})"] if made.products else found


class _Recorder(TorchFunctionMode):
    """Notes the network's tensors among the arguments of every call, as they are or reshaped on the way.

    Calls are counted as `trace` counts them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.entered: list[frozenset[str]] = []
        self.products: list[str] = []
        state = network.state_dict(keep_vars=True)
        self._alive: list[Tensor] = list(state.values())  # an id is that of one tensor only while the tensor lives
        self._made_of = {id(tensor): frozenset({key}) for key, tensor in reversed(state.items())}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = list(tensors_in(result))
        if not results:
            return result
        given = [*tensors_in(args), *tensors_in(kwargs or {})]
        entered = frozenset[str]().union(*(self._made_of.get(id(tensor), frozenset()) for tensor in given))
        data = [tensor for tensor in given if id(tensor) not in self._made_of]
        if given and not data:  # weights alone: still on their way
            self._alive += results
            self._made_of |= {id(tensor): entered for tensor in results}
            entered = frozenset()
        name = plain_name(func)
        if name in _ATTENTION or (name in _PRODUCTS and len(data) > 1):
            self.products.append(name)
        self.entered.append(entered)
        return result
