"""The values of a per-tensor method that a search varies, and the method with other values of them.

Dimensions in tensor names: K models, D values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import Survey, TensorMethod
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.weighted import Weighted

# Fields that shape the result, and where they are searched; others (tolerances, floors, ridges) guard the arithmetic.
RANGES: Mapping[str, tuple[float, float]] = {
    "scale": (0.0, 1.5),
    "density": (0.01, 1.0),
    "epsilon": (0.0, 0.3),
    "gamma": (0.0, 0.2),
    "t": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "select": (0.01, 1.0),
    "lam": (0.0, 1.0),
    "common_fraction": (0.0, 1.0),
    "ratio": (0.01, 1.0),
    "reduce": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number that is searched.

    Attributes:
        field: of the method.
        model: whose weight it is, or None.
        part: of the network that it is for, or None for all.
        low: smallest value.
        default: the method's own.
        high: largest value.
    """

    field: str
    model: int | None = None
    part: str | None = None
    low: float
    default: float
    high: float

    @property
    def name(self) -> str:
        """Such as `scale`, `weights.2` or `density@early`."""
        model = "" if self.model is None else f".{self.model}"
        return f"{self.field}{model}{'' if self.part is None else f'@{self.part}'}"

    def at(self, position: float) -> float:
        """The value at a position in [-1, 1]: `low` at -1, `default` at 0, `high` at 1, linear between them.

        Example:
            >>> Value(field="scale", low=0.0, default=1.0, high=1.5).at(0.5)
            1.25
        """
        end = self.high if position > 0 else self.low
        return self.default + abs(position) * (end - self.default)


def is_searchable(method: TensorFusion) -> bool:
    """Whether the method weighs models or has a float field that shapes its result."""
    return isinstance(method, Weighted) or any(field.name in RANGES for field in dataclasses.fields(method))


def search_space(method: TensorFusion, num_models: int, parts: Sequence[str], dimension: int) -> tuple[Value, ...]:
    """What is searched: the method's float fields and its models' weights, one value a part where that fits.

    Args:
        method: with numbers for all weights.
        num_models: K.
        parts: names of the parts of the network.
        dimension: largest number of values. Where it is too small for all: fields by part with common weights, then one
            value each, then fields alone, the first of them.
    """
    fields = [
        Value(field=name, low=min(low, value), default=value, high=max(high, value))
        for name, (low, high) in RANGES.items()
        if isinstance(value := dataclasses.asdict(method).get(name), (int, float))
    ]
    weights: list[Value] = []
    if isinstance(method, Weighted) and num_models > 1:
        weights = [_weight(index, weight) for index, weight in enumerate(method.model_weights(num_models))]
    for tried in (
        [*_by_part(fields, parts), *_by_part(weights, parts)],
        [*_by_part(fields, parts), *weights],
        [*fields, *weights],
    ):
        if len(tried) <= dimension:
            return tuple(tried)
    return tuple(fields[:dimension])


def with_values(method: TensorFusion, values: Mapping[Value, float], num_models: int, part: str) -> TensorFusion:
    """The method for one part of the network; itself where all values are its own.

    Raises:
        HyperparameterError: a combination of values that the method refuses.
    """
    own = {value: number for value, number in values.items() if value.part in (None, part)}
    if all(number == value.default for value, number in own.items()):
        return method
    changed: dict[str, Any] = {value.field: number for value, number in own.items() if value.model is None}
    by_model = {value.model: number for value, number in own.items() if value.model is not None}
    if by_model:
        changed["weights"] = tuple(by_model[index] for index in range(num_models))
    return replace(method, **changed)


@dataclass(frozen=True, kw_only=True)
class ByPart:
    """A per-tensor method that is another one in each part of a network.

    Attributes:
        methods: part -> method; all of one class.
        part_of: key -> part.
    """

    methods: Mapping[str, TensorMethod]
    part_of: Mapping[str, str]

    @property
    def whole(self) -> bool:
        """As the methods."""
        return next(iter(self.methods.values())).whole

    @property
    def size(self) -> int:
        """As the methods."""
        return next(iter(self.methods.values())).size

    def bind(self, tensors: Sequence[Blocks]) -> ByPart:
        """Each method sees all tensors."""
        return replace(self, methods={part: method.bind(tensors) for part, method in self.methods.items()})

    def survey(self, blocks: Blocks) -> Survey | None:
        """That of the tensor's method."""
        return self.methods[self.part_of[blocks.key]].survey(blocks)

    def fuse_block(self, block: Block, survey: Survey) -> Tensor:
        """The block fused by the tensor's method, (B,)."""
        return self.methods[self.part_of[block.key]].fuse_block(block, survey)


def _weight(model: int, weight: float) -> Value:
    """From 0 to twice the default."""
    ends = sorted((0.0, 2.0 * weight if weight else 1.0))
    return Value(field="weights", model=model, low=ends[0], default=weight, high=ends[1])


def _by_part(values: Sequence[Value], parts: Sequence[str]) -> list[Value]:
    return [replace(value, part=part) for part in parts for value in values]
