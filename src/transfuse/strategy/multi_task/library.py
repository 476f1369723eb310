"""`transfuse.balance`: one direction out of several gradients, without a run.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfuse.randomness import make_generator
from transfuse.state_dict import as_tensor
from transfuse.strategy.find import build
from transfuse.strategy.multi_task.base import check_per_task
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.jacobian_rule import JacobianRule
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError, NeedsContextError, NonFiniteError

Numbers = Tensor | np.ndarray[Any, Any] | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """What `balance` returns.

    Attributes:
        direction_P: (P,) in the dtype of the gradients: move the shared parameters along its negative.
        weights_T: (T,) float64 with `direction = weights @ gradients`, or None where the method is no weighting of
            whole gradients.
    """

    direction_P: Tensor
    weights_T: Tensor | None


def balance(
    gradients_TP: Tensor | np.ndarray[Any, Any],
    *,
    method: str,
    losses_T: Numbers | None = None,
    scale: str = "sum",
    orders: Sequence[Sequence[int]] | None = None,
    uniform_P: Numbers | None = None,
    seed: int = 0,
    **fields: Any,
) -> Balanced:
    """One direction out of the gradients of several tasks: the first step of a multi-task method.

    Args:
        gradients_TP: (T, P) one gradient a task, with respect to the shared parameters. Not changed.
        method: the method's name, such as `pcgrad` or `uncertainty`.
        losses_T: (T,) the tasks' losses, for methods that read them; loss weightings need them.
        scale: `sum`: without conflict the direction is the plain sum; `published`: as in the paper; `sum_norm`.
        orders: row t holds the order in which task t meets the others, for methods that draw it.
        uniform_P: (P,) numbers in (0, 1), for `graddrop`, which draws them.
        seed: of methods that use chance.
        **fields: hyper-parameters of the method. Numbers by task are lists in the order of the rows.

    Raises:
        HyperparameterError: an unknown method or field (with the nearest names), or a value out of range.
        NeedsContextError: a loss weighting without `losses_T`, or a method that trains.
        NonFiniteError: a gradient or loss is NaN or infinite.

    Example:
        >>> balance(torch.tensor([[1.0, 0.0], [-0.5, 1.0]]), method="pcgrad").direction_P
        tensor([0.8000, 1.4000])
    """
    gradients, losses = _checked(gradients_TP, losses_T)
    # rules around another one take the scale from there
    balancer = build("multi_task", method, fields if scale == "sum" else {"scale": scale, **fields})
    step = replace(
        StepInfo.anonymous(len(gradients)),
        losses_T=losses,
        generator=make_generator(seed, "balancer"),
        orders=orders,
        uniform_P=None if uniform_P is None else as_tensor(uniform_P, "`uniform_P`", HyperparameterError),
    )
    for name, values in balancer.per_task().items():
        check_per_task(name, values, step.names)
    if isinstance(balancer, GradientRule):
        exact = gradients.double()
        weights_T = balancer.weighing(exact @ exact.T, None, step).weights_T
        return _weighted(gradients, torch.from_numpy(weights_T))
    if isinstance(balancer, JacobianRule):
        found = balancer.directing(gradients, None, step)
        return Balanced(direction_P=found.direction_P, weights_T=found.weights_T)
    if isinstance(balancer, LossWeighting):
        if losses is None:
            raise NeedsContextError(f"multi_task/{method} weights losses: `losses_T` is missing.")
        given = losses.clone().requires_grad_()
        (weights,) = torch.autograd.grad(balancer.combine(given, None, step), given)
        return _weighted(gradients, weights)
    raise NeedsContextError(f"multi_task/{method} trains networks: use it as a strategy of a run.")


def _checked(gradients_TP: Tensor | np.ndarray[Any, Any], losses_T: Numbers | None) -> tuple[Tensor, Tensor | None]:
    gradients = as_tensor(gradients_TP, "`gradients_TP`", HyperparameterError)
    if gradients.ndim != 2 or len(gradients) == 0:
        raise HyperparameterError(f"`gradients_TP` should be (T, P), T >= 1. Found shape {tuple(gradients.shape)}.")
    losses = None if losses_T is None else as_tensor(losses_T, "`losses_T`", HyperparameterError).double()
    for name, values in (("gradients_TP", gradients), ("losses_T", losses)):
        if values is not None and not bool(torch.isfinite(values).all()):
            raise NonFiniteError(f"`{name}` should be finite. Found NaN or infinity.")
    if losses is not None and losses.shape != (len(gradients),):
        raise HyperparameterError(f"`losses_T` should have {len(gradients)} numbers. Found {tuple(losses.shape)}.")
    return gradients, losses


def _weighted(gradients_TP: Tensor, weights_T: Tensor) -> Balanced:
    direction_P = (weights_T @ gradients_TP.double()).to(gradients_TP.dtype)
    return Balanced(direction_P=direction_P, weights_T=weights_T)
