"""`align=straight_through`: the permutation is learned from the loss half-way between the networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from transfuse.alignment.matcher import Matcher, Pair, require_positive
from transfuse.alignment.weight_matching import match_weights
from transfuse.types import HyperparameterError


class Midpoint(nn.Module):
    """The network half-way between a reference and a permuted other one, as a function of free weights.

    The weights `h` (at first the reference's) choose the permutation `P = argmax <h, P(b)>`; the network is
    `(a + P(b)) / 2`; its gradient is passed straight through to h.

    Args:
        pair: the networks; neither is changed.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self._specification = pair.specification
        self._generator = pair.generator
        self._network = [pair.reference]  # in a list: its parameters are not this module's
        self._names = [name for name, _ in pair.reference.named_parameters()]
        self._symbols = list(pair.specification.symbols)
        reference, other = pair.reference.state_dict(), pair.other.state_dict()
        self._keys = list(reference)
        self.free = nn.ParameterList([reference[name].detach().clone() for name in self._names])
        for side, state in (("first", reference), ("second", other)):
            for index, key in enumerate(self._keys):
                self.register_buffer(f"{side}_{index}", state[key].detach().clone())
        for index, order in enumerate(match_weights(pair.specification, reference, other, pair.generator).values()):
            self.register_buffer(f"order_{index}", order)

    def permutation(self) -> dict[str, Tensor]:
        """The present order of every symbol."""
        return {name: self.get_buffer(f"order_{index}").cpu() for index, name in enumerate(self._symbols)}

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of the network half-way; in training, the permutation follows the free weights first."""
        first, second = self._side("first"), self._side("second")
        if self.training:
            self._follow(second)
        permuted = self._specification.apply(second, self.permutation())
        values = {key: _halfway(value, permuted[key]) for key, value in first.items()}
        for name, free in zip(self._names, self.free, strict=True):
            # value of (a + P(b)) / 2, gradient of h / 2
            values[name] = values[name] + 0.5 * (free - free.detach())
        network = self._network[0].train(self.training)
        outputs: dict[str, Tensor] = functional_call(network, values, (inputs,))
        return outputs

    @torch.no_grad()
    def _follow(self, second: dict[str, Tensor]) -> None:
        free = dict(zip(self._names, self.free, strict=True))
        found = match_weights(self._specification, free, second, self._generator, start=self.permutation())
        for index, order in enumerate(found.values()):
            self.get_buffer(f"order_{index}").copy_(order)

    def _side(self, side: str) -> dict[str, Tensor]:
        return {key: self.get_buffer(f"{side}_{index}") for index, key in enumerate(self._keys)}


def _halfway(first: Tensor, second: Tensor) -> Tensor:
    return torch.lerp(first, second, 0.5) if first.is_floating_point() else first.clone()


@dataclass(frozen=True, kw_only=True)
class StraightThrough(Matcher):
    """See `Midpoint`; starts from weight matching, and the permutation with the best midpoint on validation is kept.

    Attributes:
        epochs: passes over the training data, >= 1.
        lr: of the free weights, > 0.

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, 2209.04836, algorithm 3.

    Differs from the paper: the best epoch by validation loss is kept, and each step's assignment starts from the last.
    """

    most: ClassVar[int | None] = 2

    epochs: int = 5
    lr: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("epochs", self.epochs)
        if not 0 < self.lr < math.inf:
            raise HyperparameterError(f"`lr` should be > 0 and finite. Found `lr = {self.lr}`.")

    def match(self, pair: Pair) -> dict[str, Tensor]:
        """The order of every symbol."""
        midpoint = pair.train(Midpoint(pair), epochs=self.epochs, lr=self.lr)
        assert isinstance(midpoint, Midpoint)
        return midpoint.permutation()
