"""Gradients of the tasks at the features that they share: cheap stand-ins for those of the shared parameters.

Dimensions in tensor names: N examples, F features, T tasks, E = N F entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transfuse.models.network import Network
from transfuse.training.balancer import GradientBalancer, JacobianBalancer
from transfuse.training.jacobian import Roles, gramian
from transfuse.types import HyperparameterError, IncompatibleStrategyError

if TYPE_CHECKING:
    from transfuse.training.multi_task import MultiTaskModule

_LOOP = "Did you mean gradient.backend=loop?"


class FeatureBatch:
    """One batch whose losses hang on features (N, F), which hang on the backbone.

    Args:
        roles: the backbone's parameters, and each head's own.
        features_NF: of this device's examples.
        losses: of each task, means over this device's labelled examples.
        counts: of these.
        several: whether other devices have parts of the batch.
    """

    def __init__(
        self, roles: Roles, features_NF: Tensor, losses: Sequence[Tensor], counts: Sequence[float], *, several: bool
    ) -> None:
        self._roles, self._features_NF, self._losses, self._counts = roles, features_NF, losses, counts
        self._several = several
        counts_T = torch.tensor(counts, dtype=torch.float64, device=features_NF.device)
        sums_T = torch.stack([loss.detach() for loss in losses]).double() * counts_T
        self._everywhere_T, sums_T = self._summed(torch.stack([counts_T, sums_T]))
        self.present: list[int] = self._everywhere_T.nonzero().flatten().tolist()
        self.losses_T = sums_T / torch.where(self._everywhere_T > 0, self._everywhere_T, 1.0)

    def differentiate(self, scaled: Callable[[Tensor], Tensor], factors: Sequence[float]) -> Tensor:
        """Takes the gradients at the features, and places those of the heads.

        Args:
            scaled: of a loss, for fp16.
            factors: of the gradients of the tasks in `present`.

        Returns:
            Gramian (T, T) over the joined batch, float64.
        """
        rows = []
        for factor, task in zip(factors, self.present, strict=True):
            own = self._roles.own[task]
            # the share of this device's examples, and nothing without any
            share = factor * self._counts[task] / self._everywhere_T[task].item()
            wanted = [self._features_NF, *own]
            row_NF, *values = torch.autograd.grad(scaled(self._losses[task]), wanted, retain_graph=True)
            rows.append(row_NF.flatten().float() * share)
            for parameter, value in zip(own, values, strict=True):
                parameter.grad = self._summed(value * share)
        self._rows_TE = torch.stack(rows)
        return self._summed(gramian(self._rows_TE))

    def place(self, weights_T: Tensor, *, weighted_heads: bool) -> None:
        """One backward pass of the weighted gradient through the backbone."""
        if weighted_heads:
            for weight, task in zip(weights_T.tolist(), self.present, strict=True):
                for parameter in self._roles.own[task]:
                    assert parameter.grad is not None, "`differentiate` has placed it"
                    parameter.grad *= weight
        features_NF, shared = self._features_NF, list(self._roles.shared.values())
        direction_NF = (weights_T.to(self._rows_TE) @ self._rows_TE).view_as(features_NF).to(features_NF.dtype)
        found = torch.autograd.grad(features_NF, shared, direction_NF, allow_unused=True)
        for parameter, value in zip(shared, found, strict=True):
            parameter.grad = None if value is None else self._summed(value)

    def _summed(self, value: Tensor) -> Tensor:
        """Over devices."""
        if self._several:
            value = value.contiguous()
            torch.distributed.all_reduce(value)
        return value


def check_feature(module: MultiTaskModule, balancer: GradientBalancer | JacobianBalancer) -> None:
    """Raises unless one backbone serves all tasks, and the rule and the training can do without its parameters."""
    if not isinstance(module.network, Network):
        raise IncompatibleStrategyError(f"`gradient.backend = feature` needs one backbone for all tasks. {_LOOP}")
    names = tuple(f"backbone.{name}" for name, _ in module.network.backbone.named_parameters())
    apart = len(balancer.partition(names)) > 1 or len(balancer.shown(names)) < len(names)
    if balancer.kind == "jacobian" or apart:
        raise IncompatibleStrategyError(f"`gradient.backend = feature` has no gradients of parameters. {_LOOP}")
    if module.settings.accumulate > 1:
        raise HyperparameterError(f"`gradient.backend = feature` needs training.accumulate=1. {_LOOP}")
