"""Members that are averages of fold models: each recipe, trained once without every fold of the training data.

Dimensions in tensor names: M members, K folds, N examples, C classes (labels, targets).
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.weights.uniform import uniform_weights
from transfuse.types import TaskKind


def average_folds(logits_MKNC: Tensor, kind: TaskKind) -> Tensor:
    """Logits (M, N, C) of `p_m = mean_k p_mk`; for regression the mean of values.

    Example:
        >>> average_folds(torch.tensor([[[[0.5, 0.5]], [[0.9, 0.1]]]]).log(), "classification").exp()
        tensor([[[0.7000, 0.3000]]])
    """
    pool = LinearPool(kind, weights=uniform_weights(logits_MKNC.shape[1]))
    return torch.stack([pool(logits_KNC) for logits_KNC in logits_MKNC])


class FoldAverage(Combiner):
    """Averages K fold models a member, then fuses the M members: (M * K, N, C) to (N, C), a member's folds in a row.

    Args:
        inner: fuses the members; it reads their outputs only, and has the weights.
        num_folds: K.
    """

    def __init__(self, inner: Combiner, *, num_folds: int) -> None:
        super().__init__(inner.kind, diagnostics=inner.diagnostics)
        self.inner = inner
        self.num_folds = num_folds

    @property
    def unused(self) -> frozenset[int]:
        """All fold models of members without influence."""
        return frozenset(m * self.num_folds + k for m in self.inner.unused for k in range(self.num_folds))

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The fused logits (N, C)."""
        logits_MKNC = logits_MNC.reshape(-1, self.num_folds, *logits_MNC.shape[1:])
        fused_NC: Tensor = self.inner(average_folds(logits_MKNC, self.kind))
        return fused_NC
