"""Range checks that the builders of networks share."""

from __future__ import annotations

from collections.abc import Sequence

from transfuse.types import HyperparameterError


def require(holds: bool, field: str, rule: str, value: object) -> None:
    """Raises `HyperparameterError` naming the field, its rule and what was found, unless `holds`."""
    if not holds:
        raise HyperparameterError(f"`{field}` should be {rule}. Found `{field} = {value}`.")


def require_sizes(field: str, sizes: Sequence[int]) -> None:
    """`sizes` should be a list of one or more integers >= 1."""
    holds = isinstance(sizes, Sequence) and len(sizes) > 0 and all(isinstance(n, int) and n >= 1 for n in sizes)
    require(holds, field, "a list of one or more integers >= 1", sizes)


def require_size(field: str, size: int) -> None:
    """`size` should be an integer >= 1."""
    require(isinstance(size, int) and size >= 1, field, "an integer >= 1", size)


def require_dropout(dropout: float) -> None:
    """`dropout` should be a probability below 1."""
    require(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)


def require_image(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The (channels, height, width) of one input; `HyperparameterError` where inputs are no images."""
    if len(input_shape) != 3:
        raise HyperparameterError(
            f"model={model} takes images (channels, height, width). Found inputs of shape {tuple(input_shape)}. "
            f"Did you mean model=mlp?"
        )
    channels, height, width = input_shape
    return channels, height, width
