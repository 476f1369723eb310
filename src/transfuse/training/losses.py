"""The training loss of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from transfuse.models.sharing import DSelectKNetwork
from transfuse.types import Task

_UNLABELLED = -1


def task_loss(task: Task, outputs_NC: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of one task over a batch, in float32.

    classification: `-log softmax(outputs)[target]`; multilabel: binary cross-entropy with logits; regression:
    `((outputs - targets) / task.scale)^2`. Means over what is labelled; 0 where nothing is. `task.loss_scale` is not
    applied.

    Args:
        task: what is predicted.
        outputs_NC: (N, C) logits, or values in the targets' own units.
        targets: (N,) int64 classes with -1 for unlabelled, (N, C) zeros and ones, or (N, C) values with NaN for
            unlabelled.

    Returns:
        A scalar with a graph.

    Example:
        >>> task = Task(name="y", kind="regression", outputs=1, scale=(2.0,))
        >>> task_loss(task, torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(0.5000)
    """
    outputs_NC = outputs_NC.float()
    if task.kind == "classification":
        loss = cross_entropy(outputs_NC, targets, ignore_index=_UNLABELLED)
        return torch.where((targets != _UNLABELLED).any(), loss, 0.0)  # the mean of nothing is NaN
    labelled_NC = ~torch.isnan(targets)
    if not bool(labelled_NC.all()):
        # selected, not multiplied: 0 times NaN is NaN
        targets = torch.where(labelled_NC, targets, outputs_NC.detach())
        return _entries(task, outputs_NC, targets)[labelled_NC].sum() / max(int(labelled_NC.sum()), 1)
    return _entries(task, outputs_NC, targets).mean()


def task_losses(
    network: nn.Module, tasks: Sequence[Task], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> list[Tensor]:
    """`task.loss_scale * task_loss` of each task, plus what the network's own gates ask of it (`DSelectK`)."""
    losses = [
        loss if task.loss_scale == 1.0 else task.loss_scale * loss
        for task in tasks
        for loss in (task_loss(task, outputs[task.name], targets[task.name]),)
    ]
    if not isinstance(network, DSelectKNetwork):
        return losses
    penalties = network.penalties()
    return [
        loss + penalties[task.name] if task.name in penalties else loss
        for task, loss in zip(tasks, losses, strict=True)
    ]


def _entries(task: Task, outputs_NC: Tensor, targets_NC: Tensor) -> Tensor:
    if task.kind == "multilabel":
        return binary_cross_entropy_with_logits(outputs_NC, targets_NC, reduction="none")
    errors_NC = outputs_NC - targets_NC
    if task.scale:
        errors_NC = errors_NC / _scale(task.scale, errors_NC.device)
    return errors_NC.square()


@lru_cache(maxsize=64)
def _scale(scale: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(scale, dtype=torch.float32, device=device)
