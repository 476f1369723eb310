"""`output_fusion/stacking`: a meta learner on the members' outputs, with the average as its prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.meta_features import averaging
from transfuse.strategy.output_fusion.meta_linear import fit_linear
from transfuse.strategy.output_fusion.meta_mlp import LR, fit_mlp
from transfuse.strategy.output_fusion.meta_ridge import fit_ridge
from transfuse.strategy.predictions import Predictions
from transfuse.types import EmptyTaskError, HyperparameterError

_LEARNERS = {"linear": fit_linear, "ridge": fit_ridge, "mlp": fit_mlp}


@dataclass(frozen=True, kw_only=True)
class Stacking(OutputFusion):
    """Stacked generalization: a model of the labels given all members' outputs `x = (x_1, .., x_M)`.

    `linear`: `p = softmax(W log p + b)`, minimising `mean NLL + penalty ||W - W0||^2`; multi-label: log-odds
    `W l + b` of the members' log-odds; regression: `W y + b` by least squares in units of the targets' deviations.
    `ridge`: least squares of one-hot targets on probabilities, `sum of squares + penalty ||W - W0||^2`, clipped at
    1e-6 and normalized: quick, but no model of probabilities; regression: of the values in their own units.
    `mlp`: a hidden layer of 32 on the inputs of `linear`, trained by Lightning: it needs a run.

    Differs from the papers: with `prior: average`, `W0 = [I I .. I] / M`, so that few examples cannot make it much
    worse than the geometric mean (`linear`) or the average (`ridge`, regression), which are its limits for a large
    penalty and no bias. The textbook's W0 = 0 is often worse than a plain average on a few hundred examples.

    Attributes:
        learner: `linear`, `ridge` or `mlp`.
        penalty: strength of the pull to the prior, > 0; for `ridge` scikit-learn's `alpha`, for `mlp` the weight decay
            of AdamW, < 100.
        prior: W0: `average` or `zero`; `mlp` learns a correction to it.
        bias: whether there is an intercept, never penalized (`mlp`: as all its parameters).
        fit_on: `validation`, or `out_of_fold`: the training data, each example predicted by members that were trained
            without it (as many trainings more as there are folds, `evaluation.cross_fit`, for each base model). A
            library call is fitted on what it is given.
        members: after `fit_on: out_of_fold`, what is fused: the base models trained on all training data (`refit`), or
            for each the average of its fold models' probabilities (`folds`: no further training, as many networks in
            the fused one as there are folds).

    Reference:
        Wolpert 1992; Breiman 1996; Ting & Witten 1999; van der Laan et al. 2007.
    """

    learner: Literal["linear", "ridge", "mlp"] = "linear"
    penalty: float = 0.1
    prior: Literal["average", "zero"] = "average"
    bias: bool = True
    fit_on: Literal["validation", "out_of_fold"] = "validation"
    members: Literal["refit", "folds"] = "refit"

    def __post_init__(self) -> None:
        choices = {
            "learner": (self.learner, tuple(_LEARNERS)),
            "prior": (self.prior, ("average", "zero")),
            "fit_on": (self.fit_on, ("validation", "out_of_fold")),
            "members": (self.members, ("refit", "folds")),
        }
        for name, (found, allowed) in choices.items():
            if found not in allowed:
                raise HyperparameterError(f"`{name}` should be {' or '.join(allowed)}. Found `{name} = {found}`.")
        if self.members == "folds" and self.fit_on == "validation":
            raise HyperparameterError(
                "`members` should be refit with `fit_on = validation`, which trains no fold models. "
                "Found `members = folds`. Did you mean `fit_on = out_of_fold`?"
            )
        if not 0 < self.penalty < math.inf:
            raise HyperparameterError(f"`penalty` should be > 0 and finite. Found `penalty = {self.penalty}`.")
        if self.learner == "mlp" and self.penalty * LR >= 1:
            raise HyperparameterError(
                f"`penalty` should be < {1 / LR:g} with `learner = mlp`. Found `penalty = {self.penalty}`."
            )

    @property
    def fitted(self) -> bool:
        """Always."""
        return True

    def combine(self, predictions: Predictions) -> Combiner:
        """The fitted meta learner; it has no weights a member."""
        truth = predictions.truth
        if not bool((truth >= 0).any() if predictions.kind == "classification" else (~truth.isnan()).any()):
            raise EmptyTaskError("stacking needs at least one labelled example. Found none.")
        prior_CF = averaging(predictions.num_members, predictions.logits_MNC.shape[2])
        if self.prior == "zero":
            prior_CF = torch.zeros_like(prior_CF)
        return _LEARNERS[self.learner](predictions, prior_CF, penalty=self.penalty, bias=self.bias)
