"""Structure transfer: start from the source model's architecture."""

from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.distill import Distill
from transfuse.strategy.structure_transfer.net2deeper import Net2Deeper
from transfuse.strategy.structure_transfer.net2wider import Net2Wider
from transfuse.strategy.structure_transfer.operators import select_indices, shrink, widen
from transfuse.strategy.structure_transfer.scratch_architecture import ScratchArchitecture
from transfuse.strategy.structure_transfer.weight_selection import WeightSelection

__all__ = [
    "Distill",
    "Grown",
    "Net2Deeper",
    "Net2Wider",
    "ScratchArchitecture",
    "StructureTransfer",
    "WeightSelection",
    "select_indices",
    "shrink",
    "widen",
]
