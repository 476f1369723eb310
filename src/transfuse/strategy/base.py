"""The contract of every strategy: what it gets, what it returns.

A strategy turns base models (or their training) into one predictor. It sees training and validation data only.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from transfuse.base_models.model import BaseModels, Description
from transfuse.base_models.recipe import VERSION
from transfuse.randomness import make_generator
from transfuse.types import Development, IncompatibleStrategyError, ProblemKind, Scores

if TYPE_CHECKING:
    import torch
    from torch import nn

    from transfuse.models.architecture import Architecture
    from transfuse.training.fit import Fit, Fitting
    from transfuse.training.settings import Training


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a strategy may use.

    Attributes:
        development: training and validation data, of the source problem too; no test data.
        base_models: the pool, lazy.
        architecture: the run's `model`: what strategies that train build.
        training: the run's `training` settings: the budget of every arm.
        fit: trains a Lightning module with the run's trainer.
        seed: of the run.
        selection_metric: the metric that everything which selects reads on validation data.
        cross_fit: number of folds for honest validation scores of what was fitted on validation data.
        report: called with (name, scores, cost) to publish the progress of an arm.
    """

    development: Development
    base_models: BaseModels
    architecture: Architecture
    training: Training
    fit: Fit
    seed: int
    selection_metric: str
    cross_fit: int = 5
    report: Callable[[str, Scores, Mapping[str, float]], None] = lambda name, scores, cost: None

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh generator that depends on the run's seed and on `purpose` alone."""
        return make_generator(self.seed, purpose)

    def training_key(self, *parts: str) -> str:
        """SHA-256 of all that decides a training of this run: what its checkpoints are found by.

        Args:
            parts: what tells it from the run's other trainings, the strategy's hyper-parameters among them.
        """
        devices = self.fit.devices
        settings = [asdict(self.training), self.seed, devices.precision, devices.devices]
        layout = self.architecture.of(self.development.tasks).layout
        content = [VERSION, self.development.fingerprint, layout, *settings, *parts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FusedModel:
    """What a strategy returns: one predictor and where it came from.

    Attributes:
        network: maps inputs (N, ...) to a dict task -> (N, C) logits or values. None where the strategy is a report
            about its members (`baseline/mean_single`). It owns its weights.
        validation: task -> metric -> value on validation data; cross-fitted where anything was fitted on them.
        fit: the same in sample, only where something was fitted on validation data.
        members: indices of the base models that the network holds or was made of.
        combiners: task -> small module from member logits (M, N, C) to fused logits (N, C), for output fusion: fused
            predictions then come from the members' stored ones.
        weights: fusion weights by task for the record: (M,) or (M, C) nested lists, or None.
        diagnostics: numbers and short sentences for the record.
        history: one row an epoch of what was trained here, for the curves.
        looks: how many times validation scores were read to select something.
        steps: optimizer steps taken here.
    """

    network: nn.Module | None
    validation: Mapping[str, Scores]
    fit: Mapping[str, Scores] = field(default_factory=dict)
    members: tuple[int, ...] = ()
    combiners: Mapping[str, nn.Module] | None = None
    weights: Mapping[str, Any] | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    looks: int = 0
    steps: int = 0


class Strategy(ABC):
    """A way to turn base models into one predictor. Concrete ones are frozen dataclasses of hyper-parameters.

    Class attributes:
        family: the folder of the strategy, such as `weight_fusion`.
        problems: the kinds of problem that it fits.
    """

    family: ClassVar[str]
    problems: ClassVar[frozenset[ProblemKind]]

    @property
    def name(self) -> str:
        """`<family>/<method>`, as on the command line."""
        return f"{self.family}/{type(self).__module__.rpartition('.')[2]}"

    def check(self, development: Development, base_models: Description) -> None:
        """Raises `IncompatibleStrategyError` unless the strategy fits the problem and the pool; trains nothing."""
        if development.kind not in self.problems:
            raise IncompatibleStrategyError(
                f"{self.name} is for {_listed(self.problems)} problems. Found data={development.name}, a "
                f"{development.kind} problem with {_tasks(development)}. Did you mean {_REMEDY[development.kind]}?"
            )

    @abstractmethod
    def apply(self, context: Context) -> FusedModel:
        """Makes the fused model."""


class TrainedStrategy(Strategy):
    """A strategy that trains a network on the problem's data and can be paused and resumed."""

    @abstractmethod
    def start(self, context: Context) -> Arm:
        """Builds the network and lays out its training; trains nothing yet."""

    def comparable_from(self, total_steps: int) -> int:
        """The step from which on the arm may be judged against others."""
        return 0

    def apply(self, context: Context) -> FusedModel:
        """Trains to the end of the budget."""
        arm = self.start(context)
        arm.advance(arm.total_steps)
        return arm.finish()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training under way: `advance` it in as many pieces as you like, then `finish` it.

    Attributes:
        fitting: the paused training.
        finished: makes the fused model from the finished training.
    """

    fitting: Fitting
    finished: Callable[[Fitting], FusedModel]

    @property
    def total_steps(self) -> int:
        """The arm's whole budget in optimizer steps."""
        return self.fitting.total_steps

    def advance(self, to_step: int) -> Scores:
        """Trains until optimizer step `to_step` of the whole budget; returns the validation loss there."""
        return self.fitting.advance(to_step)

    def finish(self) -> FusedModel:
        """The fused model, with the best weights by validation."""
        return self.finished(self.fitting)


_REMEDY: Mapping[ProblemKind, str] = {
    "single_task": "strategy=output_fusion/average or strategy=baseline/best_single",
    "multi_task": "strategy=multi_task/joint_sum or strategy=baseline/single_task",
    "transfer": "strategy=parameter_transfer/full_finetune or strategy=baseline/scratch",
}


def require_all_tasks(strategy: Strategy, development: Development, base_models: Description) -> None:
    """Raises unless there is a base model and each predicts every task of the problem, with as many outputs."""
    base_models.require_tasks(development, strategy.name)


def _listed(kinds: frozenset[ProblemKind]) -> str:
    return " and ".join(sorted(kinds))


def _tasks(development: Development) -> str:
    names = ", ".join(task.name for task in development.tasks)
    return f"1 task ({names})" if len(development.tasks) == 1 else f"{len(development.tasks)} tasks ({names})"
