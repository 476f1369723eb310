"""`structure_transfer/scratch_architecture`: the source's architecture with fresh weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transfuse.base_models.model import BaseModel
from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.types import Development


@dataclass(frozen=True, kw_only=True)
class ScratchArchitecture(StructureTransfer):
    """f has the source's architecture, theta is fresh: f* = argmin_f L(f; D).

    The control of structure transfer: with equal seeds it equals `baseline/scratch` bit for bit.
    """

    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """A fresh network of the source's architecture with the target's heads."""
        network = source.architecture.build(target.input_shape, target.tasks, generator)
        return Grown(
            network=network,
            report={"architecture": source.description.architecture, "carried_weights": 0},
            carries=False,
        )
