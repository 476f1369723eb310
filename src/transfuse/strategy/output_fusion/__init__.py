"""Output fusion: the members' predictions become one prediction, y = sum_i w_i y_i and its relatives."""

from transfuse.strategy.output_fusion.average import Average
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.output_fusion.library import Fusion, fuse
from transfuse.strategy.output_fusion.median import Median
from transfuse.strategy.output_fusion.pools import average_log_probabilities
from transfuse.strategy.output_fusion.weighted_average import WeightedAverage

__all__ = [
    "Average",
    "Combiner",
    "Fused",
    "Fusion",
    "Median",
    "OutputFusion",
    "WeightedAverage",
    "average_log_probabilities",
    "fuse",
]
