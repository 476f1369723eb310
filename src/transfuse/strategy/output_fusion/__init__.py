"""Output fusion: the members' predictions become one prediction, y = sum_i w_i y_i and its relatives."""

from transfuse.strategy.output_fusion.average import Average
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.borda import Borda
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.output_fusion.geometric_mean import LogOpinionPool
from transfuse.strategy.output_fusion.library import Fusion, fuse
from transfuse.strategy.output_fusion.logit_average import LogitAverage
from transfuse.strategy.output_fusion.majority_vote import MajorityVote
from transfuse.strategy.output_fusion.median import Median
from transfuse.strategy.output_fusion.pools import average_log_probabilities
from transfuse.strategy.output_fusion.rank_average import RankAverage
from transfuse.strategy.output_fusion.trimmed_mean import TrimmedMean
from transfuse.strategy.output_fusion.weighted_average import WeightedAverage

__all__ = [
    "Average",
    "Borda",
    "Combiner",
    "Fused",
    "Fusion",
    "LogOpinionPool",
    "LogitAverage",
    "MajorityVote",
    "Median",
    "OutputFusion",
    "RankAverage",
    "TrimmedMean",
    "WeightedAverage",
    "average_log_probabilities",
    "fuse",
]
