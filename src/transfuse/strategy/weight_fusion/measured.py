"""What may come with the weights: statistics and masks, one mapping a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transfuse.state_dict import StateDict, as_tensors, require_list
from transfuse.types import StateDictMismatch


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Tensors that a method needs besides weights. A key that is missing has none.

    Attributes:
        statistics: key -> what was measured for it (Fisher information, a Gram matrix).
        masks: key -> booleans of the tensor's shape.
    """

    statistics: Sequence[Mapping[str, Any]] | None = None
    masks: Sequence[Mapping[str, Any]] | None = None

    def checked(self, first: StateDict, num_models: int, *, whole: bool) -> Measured:
        """The same as tensors.

        Args:
            first: the first model's state dict.
            num_models: K.
            whole: the method takes whole tensors, so statistics may have any shape.

        Raises:
            StateDictMismatch: when there is not one mapping a model, or a key or shape is not the model's.
        """
        return Measured(
            statistics=_checked(self.statistics, "statistics", first, num_models, any_shape=whole),
            masks=_checked(self.masks, "masks", first, num_models, any_shape=False),
        )

    def entries(self, key: str) -> tuple[tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Statistics and masks of one tensor, one a model."""
        return _entries(self.statistics, key), _entries(self.masks, key)


def _checked(
    found: Sequence[Mapping[str, Any]] | None, what: str, first: StateDict, num_models: int, *, any_shape: bool
) -> list[dict[str, Tensor]] | None:
    if found is None:
        return None
    require_list(found, f"`{what}`")
    if len(found) != num_models:
        raise StateDictMismatch(
            f"`{what}` should hold one mapping for each of {num_models} models. Found {len(found)}."
        )
    mappings = [as_tensors(mapping, f"{what} of model {index}") for index, mapping in enumerate(found)]
    for index, mapping in enumerate(mappings):
        for key, value in mapping.items():
            if key not in first or any(key not in other for other in mappings):
                raise StateDictMismatch(f"`{key}` is in `{what}` of model {index}, but not in every model.")
            if not any_shape and value.shape != first[key].shape:
                raise StateDictMismatch(
                    f"`{key}` is {tuple(first[key].shape)} in model 0 and {tuple(value.shape)} in `{what}` of "
                    f"model {index}."
                )
    return mappings


def _entries(found: Sequence[Mapping[str, Tensor]] | None, key: str) -> tuple[Tensor, ...] | None:
    if found is None or key not in found[0]:
        return None
    return tuple(mapping[key] for mapping in found)
