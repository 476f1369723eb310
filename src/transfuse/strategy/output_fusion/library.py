"""`transfuse.fuse`: output fusion of arrays, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfuse.randomness import make_generator
from transfuse.state_dict import as_tensor
from transfuse.strategy.find import build
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.gaussian import GaussianCombiner
from transfuse.strategy.predictions import Predictions, check_predictions
from transfuse.strategy.weights.base import WeightRule
from transfuse.types import HyperparameterError, IncompatibleStrategyError, NeedsContextError, PredictionError, TaskKind

_KINDS = ("classification", "multilabel", "regression")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """What `fuse` returns.

    Attributes:
        logits_NC: (N, C) fused logits: log-probabilities, log-odds (multi-label) or values (regression).
        weights: (M,) or (M, C) float64, or None where the method has no weights.
        combiner: fuses further predictions of the same members: `combiner(logits_MNC)`.
        diagnostics: numbers such as `fusion/kkt_gap`.
        variances_NC: (N, C) fused variances, where `variances` were given; `combiner.moments(values_MNC,
            variances_MNC)` fuses further ones.
    """

    logits_NC: Tensor
    weights: Tensor | None
    combiner: Combiner
    diagnostics: Mapping[str, float]
    variances_NC: Tensor | None = None


def fuse(
    logits_MNC: Tensor | np.ndarray[Any, Any] | Sequence[Tensor | np.ndarray[Any, Any]],
    *,
    method: str,
    labels: Tensor | np.ndarray[Any, Any] | None = None,
    kind: TaskKind = "classification",
    variances: Tensor | np.ndarray[Any, Any] | Sequence[Tensor | np.ndarray[Any, Any]] | None = None,
    scores_M: Tensor | np.ndarray[Any, Any] | Sequence[float] | None = None,
    seed: int = 0,
    **fields: Any,
) -> Fusion:
    """Fuses the predictions of several models for the same examples.

    Args:
        logits_MNC: (M, N, C) logits of M models (log-probabilities are logits too), or a list of M times (N, C); values
            for regression. Not changed; gradients do not flow through.
        method: the method's name, such as `average` or `weighted_average`.
        labels: what is true, for methods that are fitted: (N,) integers, (N, C) zeros and ones, or (N, C) floats, by
            `kind`. The fit is in sample: fuse other predictions with the returned combiner for an honest score.
        kind: `classification`, `multilabel` or `regression`.
        variances: (M, N, C) > 0, what regression models say about the variances of their own values (not their standard
            deviations); for `average` (the moments of the mixture) and `inverse_variance` with `variance="predicted"`
            (the product of the densities).
        scores_M: (M,) scores of the models, for weight rules that read scores, where there are no labels.
        seed: of methods that use chance.
        **fields: hyper-parameters of the method. `weights` may be a list (one number a model), the name of a rule, or
            `{"rule": name, **hyper-parameters}`; `inner` and each of the `candidates` the name of a method, or
            `{"method": name, **hyper-parameters}`.

    Returns:
        Fused logits in the dtype of the input, weights, the combiner and its diagnostics.

    Raises:
        HyperparameterError: an unknown method or field (with the nearest names), a value out of range, no member.
        IncompatibleStrategyError: the method is not for tasks of this kind, or members differ in their outputs.
        NeedsContextError: the method is fitted, and `labels` (or `scores_M`) are missing.
        PredictionError: predictions are no numbers, not finite or too large, or shapes do not fit.

    Example:
        >>> logits_MNC = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]]).log()
        >>> fuse(logits_MNC, method="weighted_average", weights=[3, 1]).logits_NC.exp()
        tensor([[0.7000, 0.3000]])
        >>> values_MNC, variances_MNC = torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[1.0]], [[4.0]]])
        >>> found = fuse(values_MNC, method="average", kind="regression", variances=variances_MNC)
        >>> found.logits_NC, found.variances_NC
        (tensor([[2.]]), tensor([[3.5000]]))
    """
    strategy = _strategy(method, fields)
    _check_fits(strategy, kind, labelled=labels is not None or scores_M is not None, unsure=variances is not None)
    predictions = Predictions(
        logits_MNC=_outputs(logits_MNC),
        kind=kind,
        labels=None if labels is None else _labels(labels),
        variances_MNC=None if variances is None else as_tensor(variances, "`variances`", PredictionError),
        scores_M=None if scores_M is None else as_tensor(scores_M, "`scores_M`", PredictionError).double(),
        generator=make_generator(seed, strategy.name),
    )
    check_predictions(predictions.logits_MNC, predictions.labels, kind, split="`logits_MNC`")
    _check_scores(predictions)
    return _fused(strategy, predictions)


@torch.no_grad()
def _fused(strategy: OutputFusion, predictions: Predictions) -> Fusion:
    combiner, variances_NC = strategy.combine(predictions).eval(), None
    if isinstance(combiner, GaussianCombiner) and predictions.variances_MNC is not None:
        logits_NC, variances_NC = combiner.moments(predictions.logits_MNC, predictions.variances_MNC)
    else:
        logits_NC = combiner(predictions.logits_MNC)
    return Fusion(
        logits_NC=logits_NC,
        weights=combiner.weights,
        combiner=combiner,
        diagnostics=combiner.diagnostics,
        variances_NC=variances_NC,
    )


def _check_fits(strategy: OutputFusion, kind: TaskKind, *, labelled: bool, unsure: bool) -> None:
    if kind not in _KINDS:
        raise HyperparameterError(f"`kind` should be one of {', '.join(_KINDS)}. Found `kind = {kind}`.")
    strategy.check_kind(kind)
    if strategy.fitted and not labelled:
        raise NeedsContextError(f"{strategy.name} with these settings is fitted on labels. `labels` are missing.")
    if unsure and kind != "regression":
        raise IncompatibleStrategyError(f"`variances` are for kind=regression. Found kind={kind}.")
    if unsure and not strategy.takes_variances:
        raise IncompatibleStrategyError(
            f"{strategy.name} with these settings fuses values without `variances`. Did you mean method=average, or "
            f"method=inverse_variance with variance=predicted?"
        )


def _strategy(method: str, fields: Mapping[str, Any]) -> OutputFusion:
    """The method with its fields, in which rules and other methods may be names, or names with fields."""
    built = dict(fields)
    if "weights" in built:
        built["weights"] = _rule(built["weights"])
    if "inner" in built:
        built["inner"] = _inner(built["inner"], "inner")
    if isinstance(built.get("candidates"), list | tuple):
        built["candidates"] = [_inner(candidate, "candidates") for candidate in built["candidates"]]
    strategy: OutputFusion = build("output_fusion", method, built)
    return strategy


def _inner(value: Any, field: str) -> OutputFusion:
    """A strategy from a method's name, or a name with fields; a strategy stays what it is."""
    if isinstance(value, OutputFusion):
        return value
    if isinstance(value, str):
        return _strategy(value, {})
    if isinstance(value, Mapping) and "method" in value:
        return _strategy(value["method"], {key: item for key, item in value.items() if key != "method"})
    raise HyperparameterError(
        f"`{field}` should be given by the name of a method, or a mapping with its `method`. Found {value!r}."
    )


def _rule(value: Any) -> WeightRule:
    """A weight rule from a list of numbers, a rule's name, or a name with fields; a rule stays what it is."""
    if isinstance(value, WeightRule):
        return value
    if isinstance(value, str):
        return _built(value, {})
    if isinstance(value, Mapping):
        if "rule" not in value:
            raise HyperparameterError(f"`weights` should name its `rule`. Found the keys {', '.join(map(str, value))}.")
        return _built(value["rule"], {key: item for key, item in value.items() if key != "rule"})
    if value is None:
        raise HyperparameterError("`weights` should be numbers, the name of a rule, or a mapping with one. Found None.")
    return _built("given", {"values": as_tensor(value, "`weights`", HyperparameterError).double().flatten().tolist()})


def _built(stem: str, fields: Mapping[str, Any]) -> WeightRule:
    rule: WeightRule = build("weights", stem, fields)
    return rule


def _outputs(logits_MNC: Any) -> Tensor:
    """The members' outputs as one tensor, after checking that there are members and that they fit together."""
    if isinstance(logits_MNC, (list, tuple)):
        logits_MNC = [
            as_tensor(outputs, f"`logits_MNC` of member {member}", PredictionError)
            for member, outputs in enumerate(logits_MNC)
        ]
        for member, outputs in enumerate(logits_MNC):
            _check_like(tuple(logits_MNC[0].shape), tuple(outputs.shape), member)
    found = as_tensor(logits_MNC, "`logits_MNC`", PredictionError)
    if found.ndim > 0 and len(found) == 0:
        raise HyperparameterError("`logits_MNC` should hold the outputs of at least one member. Found 0 members.")
    return found


def _check_like(first: tuple[int, ...], found: tuple[int, ...], member: int) -> None:
    """Raises unless a member's outputs (N, C) have the shape of member 0's."""
    shapes = f"{first} of member 0 and {found} of member {member}"
    if first[:-1] == found[:-1] and first != found:
        raise IncompatibleStrategyError(
            f"Members should have the same outputs. Found the shapes {shapes}. Do they share the class list?"
        )
    if first != found:
        raise PredictionError(f"Members should predict the same examples. Found the shapes {shapes}.")


def _labels(labels: Any) -> Tensor:
    found = as_tensor(labels, "`labels`", PredictionError)
    # unsigned integers of more than 8 bits lack most operations
    whole = not found.is_floating_point() and not found.is_complex() and found.dtype != torch.bool
    return found.long() if whole else found


def _check_scores(predictions: Predictions) -> None:
    if predictions.scores_M is not None and predictions.scores_M.shape != (predictions.num_members,):
        raise PredictionError(
            f"`scores_M` should have the shape ({predictions.num_members},), one score a member. "
            f"Found {tuple(predictions.scores_M.shape)}."
        )
