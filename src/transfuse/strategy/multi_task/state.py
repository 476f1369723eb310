"""What a gradient or Jacobian rule carries from step to step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from transfuse.types import StateMismatchError


class RuleState:
    """Tensors by name, of the tasks `names`; the rule that made it knows what they mean.

    Args:
        names: of all tasks of the problem, in order: rows of the tensors.
        tensors: what is carried; a rule may add tensors and replace them.
    """

    def __init__(self, names: tuple[str, ...] = (), **tensors: Tensor) -> None:
        self.names = names
        self.tensors: dict[str, Tensor] = tensors

    def rows(self, name: str, jacobian_TP: Tensor) -> Tensor:
        """The tensor `name` with a row like those of the Jacobian for each task, zeros at first, on its device."""
        known = self.tensors.get(name)
        if known is None:
            known = jacobian_TP.new_zeros(len(self.names), jacobian_TP.shape[1])
        self.tensors[name] = known.to(jacobian_TP.device)
        return self.tensors[name]

    def state_dict(self) -> dict[str, object]:
        """For a training checkpoint: names, and copies of the tensors."""
        return {"names": list(self.names), "tensors": {key: value.clone() for key, value in self.tensors.items()}}

    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Goes on from `state_dict`.

        Raises:
            StateMismatchError: it was saved for other tasks.
        """
        names, tensors = saved["names"], saved["tensors"]
        assert isinstance(names, list) and isinstance(tensors, dict)
        if tuple(names) != self.names:
            raise StateMismatchError(
                f"The balancer's state was saved for the tasks {', '.join(names)}. "
                f"Found the tasks {', '.join(self.names)}."
            )
        self.tensors = {key: value.clone() for key, value in tensors.items()}
