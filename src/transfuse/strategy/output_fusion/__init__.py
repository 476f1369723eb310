"""Output fusion: the members' predictions become one prediction, y = sum_i w_i y_i and its relatives."""

from transfuse.strategy.output_fusion.average import Average
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.borda import Borda
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.output_fusion.gating import Gating
from transfuse.strategy.output_fusion.gaussian import gaussian_mixture, gaussian_product
from transfuse.strategy.output_fusion.geometric_mean import LogOpinionPool
from transfuse.strategy.output_fusion.greedy_selection import GreedySelection
from transfuse.strategy.output_fusion.inverse_variance import InverseVariance
from transfuse.strategy.output_fusion.least_squares import LeastSquares
from transfuse.strategy.output_fusion.library import Fusion, fuse
from transfuse.strategy.output_fusion.log_pool_optimal import LogPoolOptimal
from transfuse.strategy.output_fusion.logit_average import LogitAverage
from transfuse.strategy.output_fusion.majority_vote import MajorityVote
from transfuse.strategy.output_fusion.median import Median
from transfuse.strategy.output_fusion.per_class_weights import PerClassWeights
from transfuse.strategy.output_fusion.pools import average_log_probabilities
from transfuse.strategy.output_fusion.pseudo_bma import PseudoBMA
from transfuse.strategy.output_fusion.rank_average import RankAverage
from transfuse.strategy.output_fusion.stacking import Stacking
from transfuse.strategy.output_fusion.super_learner import SuperLearner
from transfuse.strategy.output_fusion.temperature_scaled import TemperatureScaled
from transfuse.strategy.output_fusion.trimmed_mean import TrimmedMean
from transfuse.strategy.output_fusion.weighted_average import WeightedAverage

__all__ = [
    "Average",
    "Borda",
    "Combiner",
    "Fused",
    "Fusion",
    "Gating",
    "GreedySelection",
    "InverseVariance",
    "LeastSquares",
    "LogOpinionPool",
    "LogPoolOptimal",
    "LogitAverage",
    "MajorityVote",
    "Median",
    "OutputFusion",
    "PerClassWeights",
    "PseudoBMA",
    "RankAverage",
    "Stacking",
    "SuperLearner",
    "TemperatureScaled",
    "TrimmedMean",
    "WeightedAverage",
    "average_log_probabilities",
    "fuse",
    "gaussian_mixture",
    "gaussian_product",
]
