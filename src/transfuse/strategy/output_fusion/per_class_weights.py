"""`output_fusion/per_class_weights`: weights of members that differ from class to class.

Dimensions in tensor names: M members, N examples, C classes (labels), E events, O outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.class_columns import class_mixtures, label_mixtures
from transfuse.strategy.output_fusion.class_logits import class_logits, label_logits
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.log_pool_optimal import FLOOR, log_pool_weights
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of
from transfuse.strategy.weights.nll_optimal import nll_optimal_weights
from transfuse.types import HyperparameterError, TaskKind


class ClassMixture(Combiner):
    """`p_c` proportional to `sum_m W_mc p_mc`; multi-label: `p_l = sum_m W_ml p_ml`. Has `weights` (M, C)."""

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The mixture's logits (N, C)."""
        assert self.weights is not None
        log_weights_MC = self.weights.log().to(logits_MNC.dtype)
        log_probs_MEO = log_outcomes(logits_MNC, self.kind)
        if self.kind == "classification":
            return logits_of((log_probs_MEO + log_weights_MC[:, None]).logsumexp(0), self.kind, logits_MNC.shape[2])
        # (M, N * L, 2): the weights of label l are those of event n * L + l
        log_weights_ME = log_weights_MC.repeat(1, logits_MNC.shape[1])
        return logits_of((log_probs_MEO + log_weights_ME[..., None]).logsumexp(0), self.kind, logits_MNC.shape[2])


class ClassLogits(Combiner):
    """`z_c = sum_m W_mc f_mc + b_c`, normalized for classification. Has `weights` (M, C) and `bias` (C,)."""

    bias: Tensor

    def __init__(self, kind: TaskKind, *, weights: Tensor, bias: Tensor, diagnostics: dict[str, float]) -> None:
        super().__init__(kind, weights=weights, diagnostics=diagnostics)
        self.register_buffer("bias", bias)

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """Logits (N, C)."""
        assert self.weights is not None
        features_MNC = class_features(logits_MNC, self.kind)
        # z_c = sum_m W_mc f_mc + b_c
        z_NC = (features_MNC * self.weights.to(logits_MNC.dtype)[:, None]).sum(0) + self.bias.to(logits_MNC.dtype)
        return z_NC.log_softmax(-1) if self.kind == "classification" else z_NC


def class_features(logits_MNC: Tensor, kind: TaskKind) -> Tensor:
    """(M, N, C) `log max(p_c, 1e-12)`; multi-label: the log-odds of probabilities floored so.

    Example:
        >>> class_features(torch.tensor([[[0.0, 100.0]]]), "classification")
        tensor([[[-27.6310,   0.0000]]])
    """
    floored_MEO = log_outcomes(logits_MNC, kind).clamp(min=math.log(FLOOR))
    if kind == "classification":
        return floored_MEO
    return (floored_MEO[..., 1] - floored_MEO[..., 0]).reshape(logits_MNC.shape)


@dataclass(frozen=True, kw_only=True)
class PerClassWeights(OutputFusion):
    """Weights W (M, C) near the best weights for all classes, as far as validation data speak for it.

    `min_W NLL(W) + penalty ||W - w||^2`, w the pooled optimum. For multi-label each label is a problem of its own, and
    `space=probability, penalty=0` are the optimal weights of `nll_optimal` label by label. A class without validation
    examples has the pooled weights.

    Attributes:
        space: `logit`: `z_c = sum_m W_mc log p_mc + b_c` (multi-label: log-odds), w of `log_pool_optimal` with sum one.
            `probability`: `p_c` proportional to `sum_m W_mc p_mc`, each class's weights on the simplex, w of
            `nll_optimal`.
        penalty: >= 0, for `logit` > 0; biases are penalized too.
    """

    space: Literal["probability", "logit"] = "logit"
    penalty: float = 0.1

    def __post_init__(self) -> None:
        if self.space not in ("probability", "logit"):
            raise HyperparameterError(f"`space` should be probability or logit. Found `space = {self.space}`.")
        least = "> 0" if self.space == "logit" else ">= 0"
        if not 0 <= self.penalty < math.inf or (self.space == "logit" and self.penalty == 0):
            raise HyperparameterError(
                f"`penalty` should be a finite number {least} for `space = {self.space}`. "
                f"Found `penalty = {self.penalty}`."
            )

    @property
    def fitted(self) -> bool:
        """The weights read labels."""
        return True

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    @property
    def instead(self) -> str:
        """Optimal weights for values."""
        return "strategy=output_fusion/weighted_average strategy/weights=least_squares_optimal"

    def combine(self, predictions: Predictions) -> Combiner:
        """The pooled optimum, then the columns of W."""
        return self._mixture(predictions) if self.space == "probability" else self._logits(predictions)

    def _mixture(self, predictions: Predictions) -> ClassMixture:
        log_probs_MEO, outcomes_E = predictions.log_outcomes_MEO, predictions.outcomes_E
        pooled_M, _ = nll_optimal_weights(log_probs_MEO, outcomes_E)
        if predictions.kind == "classification":
            fit = class_mixtures(log_probs_MEO, outcomes_E, pooled_M, penalty=self.penalty)
        else:
            outputs = predictions.logits_MNC.shape[2]
            fit = label_mixtures(log_probs_MEO, outcomes_E.reshape(-1, outputs), pooled_M, penalty=self.penalty)
        return ClassMixture(predictions.kind, weights=fit.weights_MC, diagnostics=fit.diagnostics)

    def _logits(self, predictions: Predictions) -> ClassLogits:
        pooled_M, _ = log_pool_weights(predictions.log_outcomes_MEO, predictions.outcomes_E, sum="one")
        features_MNC = class_features(predictions.logits_MNC.double(), predictions.kind)
        solve = class_logits if predictions.kind == "classification" else label_logits
        fit = solve(features_MNC, predictions.outcomes_E, pooled_M, penalty=self.penalty)
        return ClassLogits(predictions.kind, weights=fit.weights_MC, bias=fit.bias_C, diagnostics=fit.diagnostics)
