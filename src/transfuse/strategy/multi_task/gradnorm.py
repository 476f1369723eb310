"""`multi_task/gradnorm`: weights are learned such that slow tasks get long gradients.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.layers import layer_of
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class GradNorm(GradientRule):
    """w = T softmax(x); x follows the gradient of `sum_t |w_t n_t - mean_s(w_s n_s) r_t^alpha|`, the mean held fixed.

    n are the gradients' norms, and `r_t = (L_t / L_t(0)) / mean` says how slowly task t learns; L(0) is the mean loss
    of the first epoch, during which the weights are 1. Where losses are not known or not positive, x stays.

    Adam moves x. Its epsilon is 0, so that the weights do not depend on the scale of the gradients.

    Attributes:
        alpha: how strongly slow tasks are favoured, >= 0; 0 makes all weighted gradients equally long.
        learning_rate: of x, > 0.
        on: whose norms are compared: of `all` shared parameters, or of the `last` shared layer as in the paper. Without
            names of parameters (`transfuse.balance`) all are compared.

    Example:
        >>> GradNorm().weigh(torch.tensor([[1.0, -0.5], [-0.5, 9.0]]))
        tensor([1., 1.], dtype=torch.float64)

    Reference:
        Chen et al. 2018, "GradNorm", 1711.02257. The gradient with respect to x is in closed form: no second backward
        pass. Differs from the paper: L(0) is a mean (LibMTL), not the loss of the first batch.
    """

    alpha: float = 1.5
    learning_rate: float = 0.025
    on: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 0:
            raise HyperparameterError(f"`alpha` should be >= 0. Found `alpha = {self.alpha}`.")
        if not self.learning_rate > 0:
            raise HyperparameterError(f"`learning_rate` should be > 0. Found `learning_rate = {self.learning_rate}`.")
        if self.on not in ("all", "last"):
            raise HyperparameterError(f"`on` should be all or last. Found `on = {self.on}`.")

    def shown(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """All, or those of the last layer."""
        if self.on == "all":
            return super().shown(parameters)
        last = layer_of(parameters[-1])
        return tuple(name for name in parameters if layer_of(name) == last)

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """Logits x = 0, and Adam's two moments and step counts."""
        names = ("logits", "first", "second", "steps")
        return RuleState(tasks, **{name: torch.zeros(len(tasks), dtype=torch.float64) for name in names})

    def factor(self, weights_T: Array) -> float:
        """Weights sum to T."""
        return 1.0

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """The weights of the present logits, which then take their step."""
        at = step.positions
        logits_T = state.tensors["logits"].numpy()[at]
        rates_T = relative_rates(step)
        if rates_T is not None:
            norms_T = np.sqrt(np.diagonal(gramian_TT))
            slope_T = logits_gradient(logits_T, norms_T / norms_T.mean(), rates_T, self.alpha)
            self._move(state, at, slope_T)
        return weights_of(logits_T), 0.0

    def _move(self, state: RuleState, at: list[int], slope_T: Array) -> None:
        """One step of Adam on the logits at `at`."""
        moved = {name: tensor.numpy().copy() for name, tensor in state.tensors.items()}
        decay, square_decay = _BETAS
        steps_T = moved["steps"][at] + 1
        first_T = decay * moved["first"][at] + (1 - decay) * slope_T
        second_T = square_decay * moved["second"][at] + (1 - square_decay) * slope_T**2
        length_T = np.sqrt(second_T / (1 - square_decay**steps_T))
        direction_T = first_T / (1 - decay**steps_T)
        # 0 / 0 = 0: a logit whose gradient was always 0 stays
        direction_T = np.divide(direction_T, length_T, out=np.zeros_like(direction_T), where=length_T > 0)
        moved["logits"][at] -= self.learning_rate * direction_T
        moved["first"][at], moved["second"][at], moved["steps"][at] = first_T, second_T, steps_T
        state.tensors = {name: torch.from_numpy(values) for name, values in moved.items()}


def weights_of(logits_T: Array) -> Array:
    """`T softmax(x)`, (T,)."""
    powers_T = np.exp(logits_T - logits_T.max())
    weights_T: Array = len(powers_T) * powers_T / powers_T.sum()
    return weights_T


def logits_gradient(logits_T: Array, norms_T: Array, rates_T: Array, alpha: float) -> Array:
    """The gradient (T,) of `sum_t |w_t n_t - mean_s(w_s n_s) r_t^alpha|` with respect to x, the mean held fixed.

    Args:
        logits_T: x, (T,).
        norms_T: of the gradients, > 0.
        rates_T: r, >= 0, of mean 1.
        alpha: the power, >= 0.
    """
    weights_T = weights_of(logits_T)
    lengths_T = weights_T * norms_T
    # dF/dw_t = sign(.) n_t, then through w = T softmax(x): w_t (dF/dw_t - mean_s w_s dF/dw_s)
    slope_T = np.sign(lengths_T - lengths_T.mean() * rates_T**alpha) * norms_T
    gradient_T: Array = weights_T * (slope_T - (weights_T * slope_T).mean())
    return gradient_T


def relative_rates(step: StepInfo) -> Array | None:
    """`(L_t / L_t(0)) / mean`, (T,); None in the first epoch, and where losses are unknown or not positive."""
    if step.losses_T is None or not step.epoch_means:
        return None
    losses_T, first_T = step.losses_T.numpy(), step.means(0)
    if not ((losses_T >= 0).all() and losses_T.any() and (first_T > 0).all()):
        return None
    ratios_T = losses_T / first_T
    rates_T: Array = ratios_T / ratios_T.mean()
    return rates_T
