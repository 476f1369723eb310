"""The recipe of one base model: all that decides its weights, and the key that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transfuse.base_models.model import MemberDescription
from transfuse.models.architecture import Architecture
from transfuse.randomness import make_generator
from transfuse.training.settings import Training
from transfuse.types import Development

VERSION = 1  # raise it when a change of code changes trained weights


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one base model is made.

    Attributes:
        name: for people; not part of the key.
        architecture: of the network.
        development: the data that it is trained on.
        seed: of this member alone.
        training: settings; None leaves the fresh initialization as it is.
        start: the recipe whose weights it starts from, or None for fresh ones.
        step: optimizer step of the training whose weights these are; None for the weights that `training.keep` chooses.
        train: alone (`one_by_one`), or in one step with other members (`together`), which rounds differently.
        precision: Lightning's name, such as `32-true`.
        world_size: number of devices that train together.
        trained_on: `target` or, in transfer problems, `source`.
        content: SHA-256 of given weights (a user's checkpoint), which then stand for everything else.
        state: the given weights.
    """

    name: str
    architecture: Architecture
    development: Development
    seed: int
    training: Training | None
    start: Recipe | None = None
    step: int | None = None
    train: Literal["one_by_one", "together"] = "one_by_one"
    precision: str = "32-true"
    world_size: int = 1
    trained_on: Literal["target", "source"] = "target"
    content: str | None = None
    state: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical recipe."""
        canonical = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def training_key(self) -> str:
        """Equal for all recipes that can share a training: they differ in `step`, or together in `seed`, alone."""
        return replace(self, step=None, seed=0 if self.train == "together" else self.seed).key

    def canonical(self) -> dict[str, Any]:
        """The recipe as plain values: no paths, names, devices or progress settings."""
        common = {"version": VERSION, "architecture": dict(self.architecture.of(self.development.tasks).recipe)}
        if self.content is not None:
            return {**common, "content": self.content}
        return {
            **common,
            "data": self.development.fingerprint,
            "tasks": [task.name for task in self.development.tasks],
            "seed": self.seed,
            "training": None if self.training is None else asdict(self.training),
            "start": None if self.start is None else self.start.key,
            "step": self.step,
            "train": self.train,
            "precision": self.precision,
            "world_size": self.world_size,
        }

    @property
    def description(self) -> MemberDescription:
        """What is known before it is trained."""
        return MemberDescription(
            name=self.name,
            key=self.key,
            architecture=self.architecture.name,
            layout=self.architecture.of(self.development.tasks).layout,
            tasks=tuple(task.name for task in self.development.tasks),
            trained_on=self.trained_on,
            lr=None if self.training is None or self.content is not None else self.training.lr,
        )

    def build(self) -> nn.Module:
        """A network with this member's fresh initialization."""
        return self.architecture.build(self.development.input_shape, self.development.tasks, self.generator("init"))

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of this member's own."""
        return make_generator(self.seed, purpose)
