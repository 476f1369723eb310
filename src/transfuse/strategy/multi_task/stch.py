"""`multi_task/stch`: a smooth maximum of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.base import PerTask, of_tasks
from transfuse.strategy.multi_task.loss_weighting import LossWeighting, require_positive
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class SmoothTchebycheff(LossWeighting):
    """mu log sum_t exp(a_t (L_t - z_t) / mu): the worst-off task leads, the more so the smaller mu is.

    Attributes:
        mu: smoothing, > 0; towards 0 the maximum, towards infinity the mean.
        weights: a, one number >= 0 a task; None: 1 each.
        reference: z, one number >= 0 a task; None: 0 each.
        on: `log_ratio`: of log(L_t / mean L_t of the warm-up), with the mean of log L_t during warm-up, as the authors
            train networks; `loss`: of the losses.
        warmup_epochs: of `on=log_ratio`, >= 1.

    Reference:
        Lin et al. 2024, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", 2402.19078.
    """

    mu: float = 0.1
    weights: PerTask | None = None
    reference: PerTask | None = None
    on: str = "log_ratio"
    warmup_epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mu > 0:
            raise HyperparameterError(f"`mu` should be > 0. Found `mu = {self.mu}`.")
        if self.on not in ("loss", "log_ratio"):
            raise HyperparameterError(f"`on` should be loss or log_ratio. Found `on = {self.on}`.")
        if self.warmup_epochs < 1:
            raise HyperparameterError(f"`warmup_epochs` should be >= 1. Found `warmup_epochs = {self.warmup_epochs}`.")

    def per_task(self) -> Mapping[str, PerTask | None]:
        """Numbers by task."""
        return {"weights": self.weights, "reference": self.reference}

    def factor(self, tasks: int) -> float:
        """A maximum weighs by numbers that sum to 1."""
        return float(tasks)

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """The smooth maximum; `torch.logsumexp` shifts by the largest."""
        if self.on == "log_ratio":
            require_positive(losses_T, step, 0.0, self.name)
            losses_T = (losses_T + _EPS).log()
            if len(step.epoch_means) < self.warmup_epochs:
                return losses_T.mean()
            warmup = [torch.from_numpy(step.means(epoch)) for epoch in range(self.warmup_epochs)]
            losses_T = losses_T - (torch.stack(warmup).mean(0) + _EPS).log().to(losses_T)
        weights_T, reference_T = (
            torch.from_numpy(of_tasks(values, step.names, step.tasks, default)).to(losses_T)
            for values, default in ((self.weights, 1.0), (self.reference, 0.0))
        )
        return self.mu * torch.logsumexp(weights_T * (losses_T - reference_T) / self.mu, dim=0)
