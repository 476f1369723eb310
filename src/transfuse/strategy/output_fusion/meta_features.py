"""What meta learners see: the members' outputs side by side, (N, M*C), member by member.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), F = M*C features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transfuse.types import PredictionError, TaskKind

FLOOR = 1e-6


def log_features(logits_MNC: Tensor, kind: TaskKind) -> Tensor:
    """Log-probabilities, or log-odds (multi-label), of probabilities kept above 1e-6; values as they are.

    Example:
        >>> log_features(torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]]).log(), "classification").exp()
        tensor([[0.8000, 0.2000, 0.5000, 0.5000]])
    """
    if kind == "classification":
        logits_MNC = logits_MNC.log_softmax(dim=-1).clamp(min=math.log(FLOOR))
    elif kind == "multilabel":
        largest = math.log((1 - FLOOR) / FLOOR)
        logits_MNC = logits_MNC.clamp(-largest, largest)
    return _side_by_side(logits_MNC)


def probability_features(logits_MNC: Tensor, kind: TaskKind) -> Tensor:
    """Probabilities of classes, or of having each label; values as they are.

    Example:
        >>> probability_features(torch.zeros(2, 1, 2), "multilabel")
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    if kind == "classification":
        return _side_by_side(logits_MNC.softmax(dim=-1))
    return _side_by_side(logits_MNC.sigmoid() if kind == "multilabel" else logits_MNC)


def averaging(num_members: int, num_outputs: int) -> Tensor:
    """`[I I .. I] / M`, (C, M*C) float64: the linear map that averages members.

    Example:
        >>> averaging(2, 2)
        tensor([[0.5000, 0.0000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.0000, 0.5000]], dtype=torch.float64)
    """
    return torch.eye(num_outputs, dtype=torch.float64).repeat(1, num_members) / num_members


def linear_outputs(features_NF: Tensor, coefficients_CF: Tensor, intercept_C: Tensor) -> Tensor:
    """`W x + b`, (N, C), in the dtype of the features; `PredictionError` where their number is another."""
    if features_NF.shape[1] != coefficients_CF.shape[1]:
        raise PredictionError(
            f"This combiner was fitted on {coefficients_CF.shape[1]} outputs of all members together. "
            f"Found {features_NF.shape[1]}."
        )
    dtype = features_NF.dtype
    return features_NF @ coefficients_CF.to(dtype).T + intercept_C.to(dtype)


def _side_by_side(outputs_MNC: Tensor) -> Tensor:
    return outputs_MNC.transpose(0, 1).flatten(1)
