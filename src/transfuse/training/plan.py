"""A transfer as data: which network, and which of its parameters are trained how, phase by phase."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from transfuse.types import HyperparameterError, Split, Task


@dataclass(frozen=True, kw_only=True)
class Data:
    """What work beside the steps may see: the target's development data.

    Attributes:
        tasks: what is predicted.
        train: examples to fit on.
        validation: examples to select on.
        batch_size: of the training.
        seed: of the training, for orders that are drawn.
        metric: that selects, such as `nll`.
    """

    tasks: tuple[Task, ...]
    train: Split
    validation: Split
    batch_size: int
    seed: int
    metric: str


class ClosedForm(ABC):
    """Work on the target's data before the first step: a probe, statistics, gradient norms. Deterministic."""

    @property
    def looks(self) -> int:
        """How many times validation scores are read to select something."""
        return 0

    @abstractmethod
    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan after the work: its network may be changed in place, its phases and its report replaced."""


class Penalty(nn.Module, ABC):
    """A term that is added to the loss of a phase. What it holds (reference weights, a frozen network) is no parameter.

    Attributes:
        layers: modules of the network whose outputs the term sees.
    """

    layers: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term, a scalar with a graph.

        Args:
            network: that is trained.
            inputs: (N, ...) of the batch.
            seen: layer -> what it gave for them in this step.
        """


class Finish(ABC):
    """Work on the trained network: what training parametrized becomes plain weights again, statistics are measured."""

    @property
    def looks(self) -> int:
        """How many times validation scores are read to select something."""
        return 0

    @abstractmethod
    def apply(self, network: nn.Module, data: Data) -> Mapping[str, Any]:
        """Changes the network in place; returns lines for the report."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are treated alike during a phase.

    Attributes:
        names: of the network's parameters.
        lr_factor: relative to `training.lr`, >= 0.
        weight_decay: None takes `training.weight_decay`.
        trainable: False: no gradient, no moment, no decay.
        batch_norm: of the BatchNorm (and dropout) layers of these parameters. `train`: batch statistics, running ones
            move. `eval`: running statistics, which stay; dropout is off. `reestimate`: as `eval` while training;
            the running statistics are computed anew from the training data when the phase begins and at the end of
            each epoch, before it is validated.
    """

    names: tuple[str, ...]
    lr_factor: float = 1.0
    weight_decay: float | None = None
    trainable: bool = True
    batch_norm: str = "train"

    def __post_init__(self) -> None:
        if not self.lr_factor >= 0:
            raise HyperparameterError(f"`lr_factor` should be >= 0. Found `lr_factor = {self.lr_factor}`.")
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise HyperparameterError(f"`weight_decay` should be >= 0. Found `weight_decay = {self.weight_decay}`.")
        if self.batch_norm not in ("train", "eval", "reestimate"):
            raise HyperparameterError(
                f"`batch_norm` should be train, eval or reestimate. Found `batch_norm = {self.batch_norm}`."
            )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the budget in which the groups stay as they are.

    Attributes:
        name: for people.
        share: of all steps, in (0, 1].
        groups: each parameter of the network is in exactly one.
        penalties: terms that are added to the loss.
        loss_factor: on the tasks' losses, >= 0.
    """

    name: str
    share: float
    groups: tuple[ParameterGroup, ...]
    penalties: tuple[Penalty, ...] = ()
    loss_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise HyperparameterError(f"`share` should be in (0, 1]. Found `share = {self.share}`.")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `TransferModule` runs.

    Attributes:
        network: with its loaded weights; the plan owns it.
        phases: in order; their shares sum to 1. None: no step is taken, and the leading work is all.
        leading: work before the first step, in order.
        finish: work on the trained network, in order.
        report: what was loaded and what was decided, for the record.
    """

    network: nn.Module
    phases: tuple[Phase, ...]
    leading: tuple[ClosedForm, ...] = ()
    finish: tuple[Finish, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.phases:
            return
        total = math.fsum(phase.share for phase in self.phases)
        if not math.isclose(total, 1.0, rel_tol=1e-6):
            raise HyperparameterError(f"The shares of the phases should sum to 1. Found {total:.6g}.")
        known = {name for name, _ in self.network.named_parameters()}
        for phase in self.phases:
            _check_partition(phase, known)

    def ends(self, total_steps: int) -> tuple[int, ...]:
        """The step before which each phase ends; the last is `total_steps`. A short phase may have no step."""
        shares = [math.fsum(phase.share for phase in self.phases[: index + 1]) for index in range(len(self.phases))]
        return (*(min(round(share * total_steps), total_steps) for share in shares[:-1]), total_steps)


def _check_partition(phase: Phase, known: set[str]) -> None:
    counts = Counter(name for group in phase.groups for name in group.names)
    problems = {
        "unknown": sorted(set(counts) - known),
        "in no group": sorted(known - set(counts)),
        "in several groups": sorted(name for name, count in counts.items() if count > 1),
    }
    for problem, names in problems.items():
        if names:
            raise HyperparameterError(
                f"Each parameter should be in exactly one group of phase {phase.name}. "
                f"Found {len(names)} {problem}: {', '.join(names[:5])}."
            )
    if not any(group.trainable and group.names for group in phase.groups):
        raise HyperparameterError(f"Phase {phase.name} should train at least one parameter. Found none.")
