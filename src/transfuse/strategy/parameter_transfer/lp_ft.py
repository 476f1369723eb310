"""`parameter_transfer/lp_ft`: linear probe first, then fine-tune everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfuse.base_models.model import Description
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.linear_probe import check_penalty, require_examples
from transfuse.types import Development

if TYPE_CHECKING:
    from transfuse.training.plan import ClosedForm


@dataclass(frozen=True, kw_only=True)
class LpFt(FullFinetune):
    """The linear probe to its optimum, then all of theta from `(theta_source, W_probe)`, for all steps of the budget.

    Attributes:
        head: has no meaning here: the probe is the head.
        penalty: see `LinearProbe`.
        standardize: see `LinearProbe`.

    Reference:
        Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution",
        2202.10054.
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
