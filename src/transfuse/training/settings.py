"""The `training` and `trainer` groups as typed values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained: the equal budget of every arm. All fields are part of a base model's key.

    Attributes:
        epochs: passes over the training split; exactly one of `epochs` and `steps` is set.
        steps: optimizer steps.
        batch_size: examples an optimizer step sees on all devices together, before accumulation.
        optimizer: `adam`, `adamw` or `sgd`.
        lr: peak learning rate, > 0.
        weight_decay: decoupled for adamw, L2 for the others, >= 0.
        momentum: of sgd, in [0, 1).
        schedule: of each cycle: `cosine` (from `lr` down to `lr_low`), `triangular` (from `lr_low` up to `lr` and down
            again) or `constant`.
        cycles: equal parts of the budget after warm-up, >= 1; the schedule begins anew in each.
        lr_low: where `cosine` and `triangular` end, in [0, lr].
        warmup: share of the budget with a linearly growing learning rate, in [0, 1).
        gradient_clip: largest global gradient norm; null leaves gradients alone.
        accumulate: batches added up for one optimizer step, >= 1.
        patience: epochs without a lower validation loss before training stops; null trains to the end.
        keep: `best` (weights of the epoch with the lowest validation loss) or `last`.
    """

    epochs: int | None = 30
    steps: int | None = None
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: Literal["cosine", "triangular", "constant"] = "cosine"
    cycles: int = 1
    lr_low: float = 0.0
    warmup: float = 0.0
    gradient_clip: float | None = None
    accumulate: int = 1
    patience: int | None = None
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise HyperparameterError(
                f"Exactly one of `epochs` and `steps` should be set. "
                f"Found `epochs = {self.epochs}`, `steps = {self.steps}`."
            )
        _require(self.epochs is None or self.epochs >= 1, "epochs", ">= 1", self.epochs)
        _require(self.steps is None or self.steps >= 1, "steps", ">= 1", self.steps)
        _require(self.batch_size >= 1, "batch_size", ">= 1", self.batch_size)
        _require(self.optimizer in ("adam", "adamw", "sgd"), "optimizer", "adam, adamw or sgd", self.optimizer)
        _require(0 < self.lr < math.inf, "lr", "> 0 and finite", self.lr)
        _require(self.weight_decay >= 0, "weight_decay", ">= 0", self.weight_decay)
        _require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        _require(self.schedule in _SCHEDULES, "schedule", "cosine, triangular or constant", self.schedule)
        _require(self.cycles >= 1, "cycles", ">= 1", self.cycles)
        _require(0 <= self.lr_low <= self.lr, "lr_low", f"in [0, lr = {self.lr}]", self.lr_low)
        _require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        _require(self.gradient_clip is None or self.gradient_clip > 0, "gradient_clip", "> 0", self.gradient_clip)
        _require(self.accumulate >= 1, "accumulate", ">= 1", self.accumulate)
        _require(self.patience is None or self.patience >= 1, "patience", ">= 1", self.patience)
        _require(self.keep in ("best", "last"), "keep", "best or last", self.keep)


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where training runs: the `trainer` group, handed to Lightning.

    Attributes:
        accelerator: Lightning's name: `auto`, `cpu`, `gpu`.
        devices: how many, or `auto`.
        strategy: Lightning's name: `auto`, `ddp_spawn` (several GPUs), `ddp_fork` (several CPU processes).
        precision: `32-true` or `bf16-mixed`, ...
        threads: CPU threads of a training process, >= 1; None takes torch's choice; 1 is quickest for small
            networks.
        progress: whether to show a progress bar.
        checkpoint_every: seconds of training between two checkpoints on disk, which are written at epochs' ends and
            deleted when the result is stored, >= 0; None for none.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    progress: bool = True
    checkpoint_every: float | None = 60.0

    def __post_init__(self) -> None:
        _require(self.accelerator in _ACCELERATORS, "accelerator", " or ".join(_ACCELERATORS), self.accelerator)
        _require(self.precision in _PRECISIONS, "precision", " or ".join(_PRECISIONS), self.precision)
        counted = self.devices == "auto" or (isinstance(self.devices, int) and self.devices >= 1)
        _require(counted, "devices", "auto or >= 1", self.devices)
        _require(self.threads is None or self.threads >= 1, "threads", ">= 1", self.threads)
        each = self.checkpoint_every
        _require(each is None or 0 <= each < math.inf, "checkpoint_every", ">= 0 and finite", each)


_SCHEDULES = ("cosine", "triangular", "constant")
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")


def _require(holds: bool, field: str, rule: str, value: object) -> None:
    if not holds:
        raise HyperparameterError(f"`{field}` should be {rule}. Found `{field} = {value}`.")
