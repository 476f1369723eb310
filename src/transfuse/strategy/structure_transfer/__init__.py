"""Structure transfer: start from the source model's architecture."""

from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.scratch_architecture import ScratchArchitecture

__all__ = ["Grown", "ScratchArchitecture", "StructureTransfer"]
