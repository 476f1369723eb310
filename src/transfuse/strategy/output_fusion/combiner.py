"""The contract of combiners: small modules from the members' outputs to one output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from transfuse.strategy.output_fusion.features import Reads
from transfuse.types import PredictionError, TaskKind


class Combiner(nn.Module, ABC):
    """Fuses outputs (M, N, C) of M members into (N, C), example by example, without knowing members or data.

    The result is valid logits of its own: log-probabilities for classification, log-odds for multi-label, values for
    regression. Cross-entropy, temperatures and further fusion therefore work on it as on a single network's output. It
    has the dtype of the input.

    A member with weight exactly 0 must have no influence: it is left out of the fused network.

    Attributes:
        kind: of the task.
        weights: (M,) or (M, C) float64 buffer, or None where the method has no weights.
        diagnostics: numbers for the record, named `fusion/<what>`.
    """

    weights: Tensor | None

    def __init__(
        self, kind: TaskKind, *, weights: Tensor | None = None, diagnostics: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.kind: TaskKind = kind
        self.register_buffer("weights", weights)
        self.diagnostics = dict(diagnostics or {})

    def __call__(self, logits_MNC: Tensor, features_NF: Tensor | None = None) -> Any:
        """`forward` on outputs of the shape that the combiner was made for; `PredictionError` on others."""
        found, weights = tuple(logits_MNC.shape), self.weights
        if len(found) != 3:
            raise PredictionError(f"Outputs to fuse should have the shape (members, examples, outputs). Found {found}.")
        if weights is not None and found[0] != len(weights):
            raise PredictionError(f"This combiner fuses {len(weights)} members. Found outputs of {found[0]}.")
        if weights is not None and weights.ndim > 1 and found[2] != weights.shape[1]:
            raise PredictionError(f"This combiner fuses {weights.shape[1]} outputs a member. Found {found[2]}.")
        if self.reads == "outputs":
            return super().__call__(logits_MNC)
        if features_NF is None:
            raise PredictionError(f"This combiner reads features of the examples ({self.reads}) too. Found none.")
        return super().__call__(logits_MNC, features_NF)

    @property
    def reads(self) -> Reads:
        """What `forward` gets of each example besides the outputs, as its second argument; `outputs` for nothing."""
        return "outputs"

    @abstractmethod
    def forward(self, logits_MNC: Tensor) -> Tensor:
        """(M, N, C) outputs of all members to (N, C)."""

    @property
    def unused(self) -> frozenset[int]:
        """Members without any influence: all their weights are exactly 0."""
        if self.weights is None:
            return frozenset()
        idle_M = (self.weights == 0).flatten(1).all(1) if self.weights.ndim > 1 else self.weights == 0
        return frozenset(idle_M.nonzero().flatten().tolist())
