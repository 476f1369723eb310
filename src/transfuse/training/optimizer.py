"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from transfuse.training.settings import Training


def group(parameters: list[nn.Parameter], *, weight_decay: float, lr_factor: float = 1.0) -> dict[str, Any]:
    """An optimizer group; `lr_factor` is relative to the learning rate of the schedule."""
    return {"params": parameters, "weight_decay": weight_decay, "lr_factor": lr_factor}


def make_optimizer(settings: Training, groups: list[dict[str, Any]], *, fused: bool) -> Optimizer:
    """The optimizer of `settings` over `groups`.

    Args:
        settings: names it.
        groups: of `group`; each parameter in exactly one.
        fused: one kernel for all tensors of a group: on a CPU a quarter of the time of a step per tensor.
    """
    if settings.optimizer == "sgd":
        return SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    kind = Adam if settings.optimizer == "adam" else AdamW
    return kind(groups, lr=settings.lr, fused=fused)


def restore(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Takes over moments from `saved`; learning rates and decays stay those of the new groups."""
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def lr_at(settings: Training, step: int, total_steps: int) -> float:
    """The learning rate of step `step`, counted from 0, of a budget of `total_steps`.

    Warm-up over the first `w = round(warmup * total_steps)` steps: `lr (step + 1) / w`. Then `cycles` equal parts, with
    `u` in [0, 1) for how far a step is in its own (1 would be the step after its last):

    * `cosine`: `lr_low + (lr - lr_low) (1 + cos(pi u)) / 2`; with several cycles warm restarts (Loshchilov & Hutter
      2017, 1608.03983);
    * `triangular`: `lr_low + (lr - lr_low) (1 - |2 u - 1|)` (Smith 2017, 1506.01186);
    * `constant`: `lr`.

    Example:
        >>> [lr_at(Training(lr=1.0, cycles=2), step, 4) for step in range(4)]
        [1.0, 0.5, 1.0, 0.5]
    """
    warmup = round(settings.warmup * total_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    # u = at / span, in whole numbers as long as possible: a cycle begins exactly where it should
    span = max(total_steps - warmup, 1)
    at = (step - warmup) * settings.cycles
    at = at % span if at < settings.cycles * span else span
    height = (1 + math.cos(math.pi * at / span)) / 2 if settings.schedule == "cosine" else 1 - abs(2 * at / span - 1)
    return settings.lr_low + (settings.lr - settings.lr_low) * height


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets each group's learning rate to `lr` times its factor."""
    for each in optimizer.param_groups:
        each["lr"] = lr * each["lr_factor"]


def supports_fused(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has the one-kernel step for these parameters."""
    return all(each.device.type in ("cpu", "cuda") and torch.is_floating_point(each) for each in parameters)
