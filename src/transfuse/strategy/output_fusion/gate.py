"""Gates: member weights that depend on the example.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), E events with O outcomes (see
`predictions`), F features, P numbers of an example.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.features import Reads
from transfuse.strategy.output_fusion.meta_features import log_features
from transfuse.strategy.predictions import log_outcomes, logits_of
from transfuse.types import TaskKind

_BIAS = 3.0  # gates of nearly 0 or 1 need biases far from 0, within as many steps as weights need


def gated(logits_MNC: Tensor, log_gates_NM: Tensor, kind: TaskKind) -> Tensor:
    """Logits (N, C) of `p(x) = sum_m g_m(x) p_m(x)`, in the log domain; for regression `sum_m g_m(x) f_m(x)`.

    Example:
        >>> logits_MNC = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]]).log()
        >>> gated(logits_MNC, torch.tensor([[0.75, 0.25]]).log(), "classification").exp()
        tensor([[0.7000, 0.3000]])
    """
    if kind == "regression":
        return (log_gates_NM.exp().T[:, :, None] * logits_MNC).sum(dim=0)
    log_probs_MEO = log_outcomes(logits_MNC, kind)
    events = log_probs_MEO.shape[1] // len(log_gates_NM)  # of an example: 1, or one a label
    log_gates_ME = log_gates_NM.T.repeat_interleave(events, dim=1)
    return logits_of((log_probs_MEO + log_gates_ME[:, :, None]).logsumexp(dim=0), kind, logits_MNC.shape[2])


class _Scaled(nn.Linear):
    """The linear map of `scale * weight` and `bias_scale * bias`, in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int, *, scale: float, bias_scale: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self.scale = scale
        self.bias_scale = bias_scale

    def forward(self, x_NF: Tensor) -> Tensor:
        """(N, outputs)."""
        return linear(x_NF, (self.scale * self.weight).to(x_NF.dtype), (self.bias_scale * self.bias).to(x_NF.dtype))


class GateNetwork(nn.Module):
    """Features (N, F) to log-gates (N, M): `log softmax(G x + b)`, or with one hidden ReLU layer before.

    Uniform gates before training: the last layer starts at zero. Weights are kept in units of `1 / sqrt(1 + penalty)`:
    in these the penalty is never steeper than of order 1, and one learning rate fits any penalty.

    Args:
        features: F.
        members: M.
        hidden: width of the hidden layer; 0 for none.
        penalty: >= 0, on the sum of squared weights; biases are free.
    """

    def __init__(self, features: int, members: int, *, hidden: int, penalty: float) -> None:
        super().__init__()
        scale = 1 / math.sqrt(1 + penalty)
        self._share = penalty / (1 + penalty)
        self.hidden = _Scaled(features, hidden, scale=scale) if hidden else None
        self.last = _Scaled(hidden or features, members, scale=scale, bias_scale=_BIAS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features_NF: Tensor) -> Tensor:
        """(N, M)."""
        hidden_NH = features_NF if self.hidden is None else relu(self.hidden(features_NF))
        scores_NM: Tensor = self.last(hidden_NH)
        return scores_NM.log_softmax(dim=1)

    def penalty(self) -> Tensor:
        """`penalty * ||G||^2`."""
        # penalty * ||scale * V||^2
        squares = self.last.weight.square().sum()
        return self._share * (squares if self.hidden is None else squares + self.hidden.weight.square().sum())


class PackedGate(nn.Module):
    """A gate as it is trained: each example's numbers (P) are the members' outputs, M * C, then its features.

    Args:
        network: trained in place.
        kind: of the task.
        shape: (M, C).
    """

    def __init__(self, network: GateNetwork, kind: TaskKind, shape: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.kind: TaskKind = kind
        self.shape = shape

    def forward(self, packed_PN: Tensor) -> Tensor:
        """The fused logits (N, C)."""
        num_outputs = self.shape[0] * self.shape[1]
        logits_MNC = packed_PN[:num_outputs].reshape(*self.shape, -1).transpose(1, 2)
        return gated(logits_MNC, self.network(packed_PN[num_outputs:].T), self.kind)

    @staticmethod
    def pack(logits_MNC: Tensor, features_NF: Tensor) -> Tensor:
        """(N, P)."""
        return torch.cat([logits_MNC.transpose(0, 1).flatten(1), features_NF], dim=1)


class Gate(Combiner):
    """`p(x) = sum_m g_m(x) p_m(x)`. Its `weights` (M,) are the mean gates on the data that it was fitted to.

    Args:
        kind: of the task.
        reads: where its features come from.
        network: the fitted gate.
        center: (F,) is subtracted from features.
        scale: (F,) divides them then.
        mean_gates: (M,).
        diagnostics: for the record.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        kind: TaskKind,
        *,
        reads: Reads,
        network: GateNetwork,
        center: Tensor,
        scale: Tensor,
        mean_gates: Tensor,
        diagnostics: dict[str, float],
    ) -> None:
        super().__init__(kind, weights=mean_gates, diagnostics=diagnostics)
        self._reads = reads
        self.network = network
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)

    @property
    def reads(self) -> Reads:
        """Where its features come from."""
        return self._reads

    @property
    def unused(self) -> frozenset[int]:
        """None: a member whose mean gate is 0 in floating point may still count for other examples."""
        return frozenset()

    def forward(self, logits_MNC: Tensor, features_NF: Tensor | None = None) -> Tensor:
        """The gated mixture's logits (N, C)."""
        if features_NF is None:
            features_NF = log_features(logits_MNC, self.kind)
        dtype = logits_MNC.dtype
        scaled_NF = (features_NF.to(dtype) - self.center.to(dtype)) / self.scale.to(dtype)
        return gated(logits_MNC, self.network(scaled_NF), self.kind)
