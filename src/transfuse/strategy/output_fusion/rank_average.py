"""`output_fusion/rank_average`: members' scores are replaced by their ranks among validation scores.

Dimensions in tensor names: M members, N examples, R reference examples, C classes (labels).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.ranks import counts
from transfuse.strategy.predictions import Predictions
from transfuse.types import PredictionError, TaskKind


def mean_ranks(scores_MNC: Tensor, sorted_reference_MCR: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over members of the mid-rank, from below and from above, of each score among the reference scores.

    Mid-rank = `(#less + (#equal + 1) / 2) / R`, in (0, 1 + 1 / R).

    Args:
        scores_MNC: (M, N, C).
        sorted_reference_MCR: (M, C, R) ascending.

    Returns:
        (N, C) ranks that grow with the score, and (N, C) those that fall.

    Example:
        >>> import torch
        >>> mean_ranks(torch.tensor([[[0.3]]]), torch.tensor([[[0.1, 0.3, 0.5, 0.7]]]))
        (tensor([[0.5000]], dtype=torch.float64), tensor([[0.7500]], dtype=torch.float64))
    """
    less_MCN, equal_MCN = counts(scores_MNC.transpose(1, 2), sorted_reference_MCR)
    num_reference = sorted_reference_MCR.shape[2]
    below_MCN = less_MCN + (equal_MCN.double() + 1) / 2
    above_MCN = num_reference - less_MCN - equal_MCN + (equal_MCN.double() + 1) / 2
    return below_MCN.mean(dim=0).T / num_reference, above_MCN.mean(dim=0).T / num_reference


class RankPool(Combiner):
    """`p_c` proportional to the mean rank of class c; multi-label: having against lacking each label."""

    reference: Tensor

    def __init__(self, kind: TaskKind, *, reference_MCR: Tensor) -> None:
        super().__init__(kind)
        self.register_buffer("reference", reference_MCR.contiguous())

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        if logits_MNC.shape[::2] != self.reference.shape[:2]:
            raise PredictionError(
                f"This combiner fuses {self.reference.shape[0]} members with {self.reference.shape[1]} outputs. "
                f"Found {logits_MNC.shape[0]} with {logits_MNC.shape[2]}."
            )
        below_NC, above_NC = mean_ranks(_scores(logits_MNC, self.kind), self.reference)
        log_ranks_NC = below_NC.log() if self.kind == "classification" else below_NC.log() - above_NC.log()
        fused_NC = nn.functional.log_softmax(log_ranks_NC, dim=-1) if self.kind == "classification" else log_ranks_NC
        return fused_NC.to(logits_MNC.dtype)


@dataclass(frozen=True, kw_only=True)
class RankAverage(OutputFusion):
    """`p_c` proportional to the mean over members of the rank of `p_mc` among the validation examples' `p_mc`.

    Members with other scales count alike. No label is read; the validation scores become part of the fused model.
    """

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with classes or labels."""
        return frozenset({"classification", "multilabel"})

    def combine(self, predictions: Predictions) -> RankPool:
        """The pool with these predictions as the reference; it has no weights."""
        scores_MNC = _scores(predictions.logits_MNC, predictions.kind)
        return RankPool(predictions.kind, reference_MCR=scores_MNC.transpose(1, 2).sort(dim=-1).values)


def _scores(logits_MNC: Tensor, kind: TaskKind) -> Tensor:
    """(M, N, C) float64 numbers in the order of the probabilities of each class or label."""
    return logits_MNC.double().log_softmax(dim=-1) if kind == "classification" else logits_MNC.double()
