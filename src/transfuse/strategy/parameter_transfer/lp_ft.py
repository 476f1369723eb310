"""`parameter_transfer/lp_ft`: linear probe first, then fine-tune everything."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.probed import Probed


@dataclass(frozen=True, kw_only=True)
class LpFt(Probed, FullFinetune):
    """The linear probe to its optimum, then all of theta from `(theta_source, W_probe)`, for all steps of the budget.

    Attributes:
        head, penalty, standardize: see `Probed`.

    Reference:
        Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution",
        2202.10054.
    """
