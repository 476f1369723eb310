"""How the tasks of one network share its parameters: one way a file."""

from __future__ import annotations

from transfuse.models.sharing.base import SharedNetwork, Sharing
from transfuse.models.sharing.cgc import CGC
from transfuse.models.sharing.cross_stitch import CrossStitch
from transfuse.models.sharing.dselect_k import DSelectK, DSelectKNetwork
from transfuse.models.sharing.hard import HardSharing
from transfuse.models.sharing.mmoe import MMoE
from transfuse.models.sharing.mtan import MTAN
from transfuse.models.sharing.ple import PLE

__all__ = [
    "CGC",
    "MTAN",
    "PLE",
    "CrossStitch",
    "DSelectK",
    "DSelectKNetwork",
    "HardSharing",
    "MMoE",
    "SharedNetwork",
    "Sharing",
]
