"""Candidates judged by examples that they were not fitted to, within the data that a combiner is fitted on.

Dimensions in tensor names: J candidates, N examples, C classes (labels, targets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from transfuse.randomness import make_generator
from transfuse.strategy.cross_fit import cross_fit, folds
from transfuse.strategy.output_fusion.base import fused_outputs
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.predictions import Predictions
from transfuse.types import EmptyTaskError

_FOLDS = 5


def cross_fitted(
    fit: Callable[[Predictions], Sequence[Combiner]], predictions: Predictions, *, who: str
) -> Predictions:
    """Outputs of J candidates for the labelled examples, each from a fit to the other folds.

    Args:
        fit: fits the candidates, always in the same order.
        predictions: of the members, with labels. Five folds, or one an example where there are fewer.
        who: needs that, for the message.

    Returns:
        Predictions with the candidates in the place of the members: `logits_MNC` is (J, N, C), without features.

    Raises:
        EmptyTaskError: with fewer than 2 labelled examples.
    """
    truth = predictions.truth
    known_N = truth >= 0 if truth.ndim == 1 else ~truth.isnan().all(dim=1)
    index = known_N.nonzero().squeeze(1)
    if len(index) < 2:
        raise EmptyTaskError(
            f"{who} has too few validation examples: to compare fits it needs at least 2 labelled ones. "
            f"Found {len(index)}."
        )
    known = predictions.at(index, predictions.generator)
    seed = int(torch.randint(2**62, (1,), generator=predictions.generator))

    def fit_and_predict(rest: Tensor, held: Tensor, fold: int) -> Tensor:
        generator = make_generator(seed, fold)
        held_out = known.at(held, generator)
        # (n, J, C): folds are joined along the examples
        return torch.stack(
            [fused_outputs(combiner.eval(), held_out) for combiner in fit(known.at(rest, generator))], dim=1
        )

    # not by class: the choice does not depend on how classes are numbered
    folds_N = folds(None, len(index), min(_FOLDS, len(index)), make_generator(seed, "folds"))
    outputs_NJC = cross_fit(fit_and_predict, folds_N)
    return replace(known, logits_MNC=outputs_NJC.transpose(0, 1), features_NF=None, scores_M=None)
