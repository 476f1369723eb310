"""The words of transfuse as types: errors, tasks, splits, problems.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), K models, T tasks, P parameters.
Importing this module loads neither torch nor Lightning, so that the command line can raise these errors at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

TaskKind = Literal["classification", "multilabel", "regression"]
ProblemKind = Literal["single_task", "multi_task", "transfer"]
SplitName = Literal["train", "validation"]
Scores = dict[str, float]


class TransfuseError(Exception):
    """Base of every error that transfuse raises on purpose."""


class ConfigError(TransfuseError):
    """The composed config has an unknown key, a wrong type or a folder that cannot be used."""


class HyperparameterError(TransfuseError, ValueError):
    """A hyper-parameter is out of its range."""


class DataError(TransfuseError):
    """The data are missing, damaged or do not hold what the config says."""


class IncompatibleStrategyError(TransfuseError):
    """The strategy does not fit the problem or the base models; raised before anything is trained."""


class StateDictError(TransfuseError):
    """State dicts cannot be combined or loaded."""


class StateDictMismatch(StateDictError):
    """Keys or shapes of state dicts differ."""


class BufferMismatch(StateDictError):
    """Integer or boolean buffers differ between models and cannot be averaged."""


class KeyMapError(StateDictError):
    """A key map sends two keys to one, or matches nothing."""


class MissingBaseError(TransfuseError):
    """The method needs the weights that all models started from, and there are none."""


class NeedsContextError(TransfuseError):
    """A library call lacks the data, the network or the training that the method needs."""


class StateMismatchError(TransfuseError):
    """A saved state of a training, or of its balancer, belongs to other tasks."""


class NonFiniteError(TransfuseError):
    """Weights, losses or gradients are NaN or infinite."""


class TrainingError(TransfuseError):
    """A process of a training on several devices failed or was killed, for a reason that is none of ours."""


class PredictionError(TransfuseError):
    """A member's predictions are not finite or do not fit the labels."""


class ConvergenceError(TransfuseError):
    """A solver stopped above its tolerance."""


class EmptyTaskError(TransfuseError):
    """A task has no label in a split that needs one."""


class UnsupportedStructureError(TransfuseError):
    """A network lacks the structure that the method works on."""


class IncompatibleScoreError(TransfuseError):
    """A transferability score does not take such targets or sources."""


class ScoreSaturatedError(TransfuseError):
    """A transferability score would be the same for every source."""


class TransferabilityWarning(UserWarning):
    """A transferability score says little on these data."""


class PreservationError(TransfuseError):
    """A network that was to keep its function does not."""


class CoverageError(TransfuseError):
    """Too few weights of a checkpoint fit the network."""


class StoreError(TransfuseError):
    """The store of base models cannot be read or written."""


class MissingExtraError(TransfuseError):
    """An optional package is not installed; the message names the install command."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to predict.

    Attributes:
        name: unique within the problem.
        kind: `classification` (one class of C), `multilabel` (C labels, 0 or 1), `regression` (C real targets).
        outputs: C, the number of classes, labels or targets. A network gives (N, C).
        classes: names of the classes or targets; empty when unknown.
        location: regression only: mean of the training targets, one entry a target.
        scale: regression only: standard deviation of the training targets. Networks predict in the targets' own
            units; their loss is measured in units of `scale`, so that tasks of different units can be summed.
        loss_scale: factor on the task's training loss.
    """

    name: str
    kind: TaskKind
    outputs: int
    classes: tuple[str, ...] = ()
    location: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    loss_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples in memory.

    Attributes:
        inputs: (N, *input shape), float32, already scaled by statistics of the training split.
        targets: task name -> (N,) int64 class indices, -1 for unlabelled | (N, C) float32 zeros and ones | (N, C)
            float32 values; NaN for unlabelled.
        ids: (N,) int64, unique among all examples of the data set; they tie stored predictions to examples.
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Tensor) -> Split:
        """The examples at `index` (int64 positions or a boolean mask), copied."""
        return Split(
            inputs=self.inputs[index],
            targets={name: values[index] for name, values in self.targets.items()},
            ids=self.ids[index],
        )


@dataclass(frozen=True, kw_only=True)
class Development:
    """All that a strategy may see of a problem: training and validation data. It cannot reach the test split.

    Attributes:
        name: of the data set.
        tasks: what to predict, in order.
        train: examples to fit networks on.
        validation: examples to select on.
        fingerprint: SHA-256 over tasks, inputs, targets and ids of both splits; part of every base model's key.
        source: transfer problems only: the data that the source model is trained on.
    """

    name: str
    tasks: tuple[Task, ...]
    train: Split
    validation: Split
    fingerprint: str
    source: Development | None = field(default=None)

    @property
    def kind(self) -> ProblemKind:
        """Which strategies fit: `single_task`, `multi_task` or `transfer`."""
        if self.source is not None:
            return "transfer"
        return "single_task" if len(self.tasks) == 1 else "multi_task"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the example dimension."""
        return tuple(self.train.inputs.shape[1:])

    def split(self, name: SplitName) -> Split:
        """The split of this name."""
        return {"train": self.train, "validation": self.validation}[name]

    def for_task(self, name: str) -> Development:
        """The same data with one task only, without the examples that have no label for it."""
        task = next(task for task in self.tasks if task.name == name)

        def only(split: Split) -> Split:
            alone = replace(split, targets={name: split.targets[name]})
            values = split.targets[name]
            labelled_N = values >= 0 if task.kind == "classification" else ~values.isnan().all(1)
            return alone if bool(labelled_N.all()) else alone.select(labelled_N)

        return replace(
            self,
            tasks=(task,),
            train=only(self.train),
            validation=only(self.validation),
            fingerprint=f"{self.fingerprint}/{name}",
        )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What the `data` group builds. Only `experiment` and `evaluation` hold it; strategies get `development`.

    Attributes:
        development: training and validation data.
        test: opened once, by `evaluation`, after the fused model is final.
        notes: what was decided about the data, one sentence each (inferred types, left-out columns).
    """

    development: Development
    test: Split
    notes: tuple[str, ...] = ()
