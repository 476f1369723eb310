"""Weight fusion: several models of one architecture become one network of that architecture."""

from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.greedy_soup import GreedySoup, greedy_selection
from transfuse.strategy.weight_fusion.library import merge
from transfuse.strategy.weight_fusion.linear import LinearMerge
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.network_fusion import Choice, NetworkFusion
from transfuse.strategy.weight_fusion.requirements import HeadMismatchError, ModelCountError
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.selection import Selection
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.uniform_soup import UniformSoup
from transfuse.strategy.weight_fusion.weighted import Weighted

__all__ = [
    "Block",
    "Blocks",
    "Choice",
    "GreedySoup",
    "HeadMismatchError",
    "LinearMerge",
    "Measured",
    "ModelCountError",
    "NetworkFusion",
    "Scaled",
    "Selection",
    "TensorFusion",
    "UniformSoup",
    "WeightFusion",
    "Weighted",
    "greedy_selection",
    "merge",
    "weighted_sum",
]
