"""`parameter_transfer/linear_probe`: the source's features as they are, and the best linear head on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import Description
from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.ranges import require_positive
from transfuse.types import Development, HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import ClosedForm, Phase


@dataclass(frozen=True, kw_only=True)
class LinearProbe(ParameterTransfer):
    """w frozen; `min over h of C sum_i loss_i + 1/2 |W|^2` on features that are computed once, in evaluation mode.

    Cross-entropy for classification, the logistic loss for labels, squared error (ridge) for values; to convergence, in
    float64. No step is taken and no augmentation is seen.

    Attributes:
        head: has no meaning here: the probe is the head.
        penalty: C > 0; `auto`: of nine powers of ten from 1e-4 to 1e4 the best by validation loss.
        standardize: features to mean 0 and deviation 1 first; folded into the head afterwards.

    Reference:
        Kornblith et al. 2019, "Do better ImageNet models transfer better?", 1805.08974.
    """

    penalty: float | str = "auto"
    standardize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_penalty(self.penalty)

    def check(self, development: Development, base_models: Description) -> None:
        """Every class needs a training example."""
        super().check(development, base_models)
        require_examples(development)

    def leading(self) -> tuple[ClosedForm, ...]:
        """The probe."""
        from transfuse.training.probe import ProbeHeads

        return (ProbeHeads(penalty=self.penalty, standardize=self.standardize),)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """None."""
        return ()


def check_penalty(penalty: float | str) -> None:
    """Raises `HyperparameterError` unless `penalty` is `auto` or > 0."""
    if isinstance(penalty, str):
        if penalty != "auto":
            raise HyperparameterError(f"`penalty` should be auto or > 0. Found `penalty = {penalty}`.")
    else:
        require_positive("penalty", penalty)


def require_examples(development: Development) -> None:
    """Raises `DataError` where a class has no labelled training example."""
    from transfuse.training.probe import require_all_classes

    for task in development.tasks:
        targets = development.train.targets[task.name]
        if task.kind == "classification":
            require_all_classes(task, targets[targets >= 0].double().numpy())
