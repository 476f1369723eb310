"""Base models as strategies see them: what they are before training, what they are after, and the pool of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from transfuse.types import Development, IncompatibleStrategyError, Scores, SplitName

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfuse.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class MemberDescription:
    """A base model before it is trained.

    Attributes:
        name: for people, such as `seeds-0`.
        key: of its entry in the store.
        architecture: the model's config name, such as `cnn`.
        layout: canonical JSON of its whole architecture; equal layouts have equal state dict keys and shapes.
        tasks: names of the tasks that it has heads for.
        trained_on: `target` (the problem's own data) or `source` (transfer problems).
        lr: learning rate of its training; None for weights that were given or never trained.
    """

    name: str
    key: str
    architecture: str
    layout: str
    tasks: tuple[str, ...]
    trained_on: Literal["target", "source"] = "target"
    lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """The pool of base models before any is trained: what `Strategy.check` judges.

    Attributes:
        recipe: the pool's config name, such as `seeds`.
        members: in order.
        has_base: whether all members started from one known set of weights.
        retrainable: whether the pool can be trained on parts of the training data: no member's weights are given.
        build: makes a network like the first member's with fresh weights, for the names of its tensors; None: unknown.
    """

    recipe: str
    members: tuple[MemberDescription, ...]
    has_base: bool = False
    retrainable: bool = False
    build: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.members)

    def require_tasks(self, development: Development, who: str) -> None:
        """Raises `IncompatibleStrategyError` unless each member predicts every task, with as many outputs.

        Args:
            development: the problem.
            who: needs that, for the message.
        """
        if not self.members:
            raise IncompatibleStrategyError("`base_models` is empty. Add at least one.")
        for member in self.members:
            source = development.source if member.trained_on == "source" else None
            known = {task.name: (task.kind, task.outputs) for task in (source or development).tasks}
            for task in development.tasks:
                if task.name not in member.tasks:
                    raise IncompatibleStrategyError(
                        f"{who} needs base models that predict every task. Found {member.name} without {task.name}. "
                        f"Did you mean base_models=seeds?"
                    )
                if known[task.name] != (task.kind, task.outputs):
                    raise IncompatibleStrategyError(
                        f"{who} needs base models with the same outputs. Found {task.kind} with {task.outputs} outputs "
                        f"for {task.name}, and {member.name} with {known[task.name][1]}. Do they share the class list?"
                    )


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A trained network that a strategy starts from.

    Attributes:
        description: what it is.
        architecture: its recipe, to build networks of the same kind for other tasks.
        state: its weights; never change them, `network()` gives a copy.
        build: makes a network of its architecture with fresh weights.
        validation: task -> metric -> value on the validation split of the data that it was trained on.
        seconds: what its training took, whenever that was.
        trained_here: whether this run trained it (otherwise it was read from the store).
        training: key of that training, where several members come from it and share its seconds.
    """

    description: MemberDescription
    architecture: Architecture
    state: Mapping[str, Tensor]
    build: Callable[[], nn.Module]
    validation: Mapping[str, Scores]
    seconds: float
    trained_here: bool
    training: str | None = None

    def network(self) -> nn.Module:
        """A new network with this model's weights, in evaluation mode, sharing no storage with anything."""
        network = self.build()
        network.load_state_dict({key: value.clone() for key, value in self.state.items()})
        return network.eval()


def training_seconds(members: Iterable[BaseModel]) -> float:
    """What the trainings of `members` took together, each training counted once."""
    return sum({member.training or member.description.key: member.seconds for member in members}.values())


class BaseModels(ABC):
    """The ordered pool of base models. A member is trained, or read from the store, when it is first asked for."""

    description: Description

    def __len__(self) -> int:
        return len(self.description)

    @abstractmethod
    def __getitem__(self, index: int) -> BaseModel:
        """Member `index`, trained or loaded now if it was not yet."""

    def __iter__(self) -> Iterator[BaseModel]:
        return (self[index] for index in range(len(self)))

    @property
    @abstractmethod
    def base(self) -> BaseModel | None:
        """The weights that all members started from, or None."""

    @abstractmethod
    def logits(self, split: SplitName) -> dict[str, Tensor]:
        """Task -> (M, N, C) float32 outputs of all members on a split of the problem's data, in the split's order."""

    @abstractmethod
    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        """Task -> (M, N, C) float32 outputs on the training split, in its order, of members trained without its fold.

        Every fold trains the whole pool on the other folds; only where `description.retrainable`.

        Args:
            folds_N: (N,) int64 fold number of every training example.
        """

    @abstractmethod
    def fold_pools(self, folds_N: Tensor) -> Sequence[BaseModels]:
        """The pools behind `out_of_fold_logits`, one a fold in the folds' order, trained (or loaded) now.

        Each has the members of this pool, trained without its fold. `logits("validation")` are theirs.
        """

    def statistics(self, purpose: str, measure: Callable[[BaseModel], Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """What `measure` finds in every member, in order; a pool with a store keeps it.

        Args:
            purpose: all that the result depends on besides the member and the problem's data, in any words.
            measure: name -> tensor of one member.
        """
        return [dict(measure(member)) for member in self]

    @abstractmethod
    def used(self) -> tuple[BaseModel, ...]:
        """The members (and base) that were asked for so far: what the run paid for."""
