"""What strategies that begin with a linear probe share."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfuse.base_models.model import Description
from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.ranges import require_positive
from transfuse.types import Development, HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import ClosedForm


@dataclass(frozen=True, kw_only=True)
class Probed(ParameterTransfer, ABC):
    """The head is a linear probe on the source's features.

    Attributes:
        head: has no meaning here: the probe is the head.
        penalty: C > 0 of `C sum_i loss_i + 1/2 |W|^2`; `auto`: of nine powers of ten from 1e-4 to 1e4 the best by
            validation loss.
        standardize: features to mean 0 and deviation 1 first; folded into the head afterwards.
    """

    penalty: float | str = "auto"
    standardize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.penalty, str):
            require_positive("penalty", self.penalty)
        elif self.penalty != "auto":
            raise HyperparameterError(f"`penalty` should be auto or > 0. Found `penalty = {self.penalty}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """Every class needs a labelled training example."""
        from transfuse.training.probe import require_all_classes

        super().check(development, base_models)
        for task in development.tasks:
            if task.kind == "classification":
                targets_N = development.train.targets[task.name]
                require_all_classes(task, targets_N[targets_N >= 0].double().numpy())

    def leading(self) -> tuple[ClosedForm, ...]:
        """The probe."""
        from transfuse.training.probe import ProbeHeads

        return (ProbeHeads(penalty=self.penalty, standardize=self.standardize),)
