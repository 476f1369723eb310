"""What members said about one task: the input of every combiner and weight rule.

Dimensions in tensor names: M members, N examples, C classes (labels, targets). Classification and multi-label are one
thing below: E events with O outcomes each (E = N, O = C; or E = N * C, O = 2, where outcome 1 is "has the label").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from transfuse.metrics import score
from transfuse.randomness import make_generator
from transfuse.types import NeedsContextError, NonFiniteError, PredictionError, Task, TaskKind

if TYPE_CHECKING:
    from transfuse.training.fit import Fit


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Outputs of all members for one task, and what is known to be true.

    Attributes:
        logits_MNC: (M, N, C) logits; for regression values in the targets' own units.
        kind: of the task.
        labels: (N,) int64 classes | (N, C) zeros and ones | (N, C) values; None where nothing is known. Single ones
            are unlabelled where they are -1 (classes) or NaN.
        features_NF: (N, F) numbers that describe each example, for combiners that read more than outputs.
        variances_MNC: (M, N, C) > 0: for regression, how sure members are, where they say so.
        scores_M: (M,) validation scores of the members, in the metric that a weight rule asks for; only read where
            there are no labels to compute them from.
        task: what is predicted, where a run says so: its name, classes and units.
        metric: the run's selection metric for this task, for methods that choose; None outside a run.
        generator: for combiners that use chance.
        fit: the run's trainer, for combiners that Lightning trains; None outside a run.
    """

    logits_MNC: Tensor
    kind: TaskKind
    labels: Tensor | None = None
    features_NF: Tensor | None = None
    variances_MNC: Tensor | None = None
    scores_M: Tensor | None = None
    task: Task | None = None
    metric: str | None = None
    generator: torch.Generator = field(default_factory=lambda: make_generator("predictions"), compare=False)
    fit: Fit | None = field(default=None, compare=False)

    @property
    def trainer(self) -> Fit:
        """The run's trainer; raises `NeedsContextError` outside a run."""
        if self.fit is None:
            raise NeedsContextError("Lightning trains this method, in a run only. Use `transfuse strategy=...`.")
        return self.fit

    @property
    def num_members(self) -> int:
        """M."""
        return self.logits_MNC.shape[0]

    @property
    def truth(self) -> Tensor:
        """The labels; raises `NeedsContextError` where there are none."""
        if self.labels is None:
            raise NeedsContextError("`labels` are missing: this method is fitted on them. Pass `labels`.")
        return self.labels

    @property
    def log_outcomes_MEO(self) -> Tensor:
        """(M, E, O) float64 log-probabilities of every outcome of every event."""
        return log_outcomes(self.logits_MNC.double(), self.kind)

    @property
    def outcomes_E(self) -> Tensor:
        """(E,) int64: which outcome came true; -1 where unlabelled."""
        return self.truth.nan_to_num(-1).flatten().long()

    def scores(self, metric: str) -> Tensor:
        """(M,) float64: `metric` of every member, from the labels where there are any, else `scores_M`.

        Raises:
            NeedsContextError: when there are neither labels nor scores.
            HyperparameterError: when the metric does not exist for this kind of task.
            DataError: when the metric is undefined for these labels.
            NonFiniteError: when a given score is not finite.
        """
        if self.labels is None and self.scores_M is not None:
            for member, value in enumerate(self.scores_M.tolist()):
                if not math.isfinite(value):
                    raise NonFiniteError(f"`scores_M` should be finite. Found {value} for member {member}.")
            return self.scores_M.double()
        task = self.task or Task(name="task", kind=self.kind, outputs=self.logits_MNC.shape[2])
        found = [score(task, logits_NC, self.truth, metric) for logits_NC in self.logits_MNC]
        return torch.tensor(found, dtype=torch.float64)

    def at(self, index: Tensor, generator: torch.Generator) -> Predictions:
        """The examples at `index`, with a generator of their own."""
        labels = None if self.labels is None else self.labels[index]
        features_NF = None if self.features_NF is None else self.features_NF[index]
        variances_MNC = None if self.variances_MNC is None else self.variances_MNC[:, index]
        return replace(
            self,
            logits_MNC=self.logits_MNC[:, index],
            labels=labels,
            features_NF=features_NF,
            variances_MNC=variances_MNC,
            generator=generator,
        )


def log_outcomes(logits: Tensor, kind: TaskKind) -> Tensor:
    """Logits (..., N, C) as log-probabilities (..., E, O) of the outcomes of events; none is -inf.

    Classification: `log_softmax(z)`. Multi-label: `log sigmoid(-z), log sigmoid(z)` for "lacks" and "has" the label.

    Example:
        >>> log_outcomes(torch.zeros(1, 2), "multilabel").exp()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    if kind == "classification":
        return log_softmax(logits, dim=-1)
    return torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1).flatten(-3, -2)


def true_log_probs(log_probs_MEO: Tensor, outcomes_E: Tensor) -> Tensor:
    """(M, E) log-probabilities of the outcomes that came true; events with outcome -1 (unlabelled) are left out."""
    known = outcomes_E >= 0
    return log_probs_MEO[:, known].gather(2, outcomes_E[known].expand(len(log_probs_MEO), -1).unsqueeze(2)).squeeze(2)


def logits_of(log_outcomes_EO: Tensor, kind: TaskKind, num_outputs: int) -> Tensor:
    """The inverse of `log_outcomes` for fused events: valid logits (N, C); outcomes need not sum to 1 before.

    Classification: `log p`, normalized. Multi-label: log-odds `log p(has) - log p(lacks)`.
    """
    if kind == "classification":
        return log_softmax(log_outcomes_EO, dim=-1)
    return (log_outcomes_EO[..., 1] - log_outcomes_EO[..., 0]).reshape(-1, num_outputs)


def check_predictions(
    logits_MNC: Tensor, labels: Tensor | None, kind: TaskKind, *, split: str, ids: Sequence[int] | None = None
) -> None:
    """Raises `PredictionError` unless members' outputs are finite, of the right shape, and fit the labels."""
    if logits_MNC.ndim != 3 or logits_MNC.shape[0] == 0 or logits_MNC.shape[2] == 0:
        raise PredictionError(
            f"Predictions should have the shape (members, examples, outputs), with at least one member and output. "
            f"Found {tuple(logits_MNC.shape)}."
        )
    if not logits_MNC.is_floating_point():
        raise PredictionError(f"Predictions should be floating-point. Found {logits_MNC.dtype}.")
    # differences of logits, and squares of values in float64, stay finite
    largest = min(torch.finfo(logits_MNC.dtype).max / 4, 1e100)
    bad = (~(logits_MNC.abs() <= largest)).any(dim=2).nonzero()
    if len(bad):
        member, row = bad[0].tolist()
        finite = bool(logits_MNC[member, row].isfinite().all())
        raise PredictionError(
            f"Member {member} predicts {f'values above {largest:.1e}' if finite else 'NaN or infinity'} on {split}: "
            f"first at the example with id {row if ids is None else ids[row]}. Did its training diverge?"
        )
    if labels is not None:
        _check_labels(labels, kind, *logits_MNC.shape[1:])


def _check_labels(labels: Tensor, kind: TaskKind, num_examples: int, num_outputs: int) -> None:
    shape = (num_examples,) if kind == "classification" else (num_examples, num_outputs)
    if labels.shape != shape:
        raise PredictionError(
            f"Labels of a {kind} task should have the shape {shape}. Found {tuple(labels.shape)}. "
            f"Do predictions and labels come from the same examples?"
        )
    if labels.is_complex():
        raise PredictionError(f"Labels should be real numbers. Found {labels.dtype}.")
    if kind == "regression":
        if labels.isinf().any():
            raise PredictionError("Regression labels should be finite, or NaN for unlabelled. Found infinity.")
        return
    if kind == "classification" and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise PredictionError(f"Class labels should be integers. Found {labels.dtype}.")
    values = labels.flatten().double()
    if kind == "classification":
        allowed, fits = f"in [0, {num_outputs - 1}], or -1 for unlabelled", (values >= -1) & (values < num_outputs)
    else:
        allowed, fits = "0 or 1, or NaN for unlabelled", (values == 0) | (values == 1) | values.isnan()
    if not fits.all():
        raise PredictionError(f"Labels of a {kind} task should be {allowed}. Found {values[~fits][0].item():g}.")
