"""Member predictions and labels of every kind, size and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.randomness import make_generator
from transfuse.strategy.predictions import Predictions
from transfuse.types import TaskKind


def make_predictions(
    kind: TaskKind,
    *,
    members: int = 3,
    examples: int = 40,
    outputs: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Predictions:
    """Members of differing quality around one truth; every class (and its absence) occurs among the labels."""
    generator = make_generator("predictions", kind, members, examples, outputs, seed)
    noise_MNC = torch.randn(members, examples, outputs, generator=generator, dtype=torch.float64)
    spread_M11 = torch.linspace(0.5, 1.5, members, dtype=torch.float64)[:, None, None]
    labels, truth_NC = _truth(kind, examples, outputs, generator)
    logits_MNC = truth_NC + spread_M11 * noise_MNC
    return Predictions(logits_MNC=logits_MNC.to(dtype), kind=kind, labels=labels)


def _truth(kind: TaskKind, examples: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if kind == "classification":
        labels = torch.arange(examples) % outputs
        return labels, 1.5 * torch.nn.functional.one_hot(labels, outputs).double()
    if kind == "multilabel":
        labels = ((torch.arange(examples)[:, None] + torch.arange(outputs)) % 3 == 0).float()
        return labels, 2.0 * labels.double() - 1.0
    values = torch.randn(examples, outputs, generator=generator)
    return values, values.double()


def probabilities(logits: Tensor, kind: TaskKind) -> Tensor:
    """Probabilities of logits; values stay what they are. Independent of the code under test."""
    if kind == "classification":
        return torch.softmax(logits.double(), dim=-1)
    return torch.sigmoid(logits.double()) if kind == "multilabel" else logits.double()
