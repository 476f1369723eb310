"""Weight rules: how much each member of a weighted average counts."""

from transfuse.strategy.weights.base import WeightRule, Weights
from transfuse.strategy.weights.brier_optimal import BrierOptimal, brier_optimal_weights
from transfuse.strategy.weights.given import Given
from transfuse.strategy.weights.interval import weights_interval
from transfuse.strategy.weights.inverse_loss import InverseLoss, inverse_loss_weights
from transfuse.strategy.weights.least_squares_optimal import LeastSquaresOptimal, least_squares_weights
from transfuse.strategy.weights.nll_optimal import NllOptimal, nll_optimal_weights
from transfuse.strategy.weights.pseudo_bma import PseudoBMA, pseudo_bma_weights
from transfuse.strategy.weights.score import Score, score_weights
from transfuse.strategy.weights.softmax_score import SoftmaxScore, softmax_score_weights
from transfuse.strategy.weights.uniform import Uniform, uniform_weights

__all__ = [
    "BrierOptimal",
    "Given",
    "InverseLoss",
    "LeastSquaresOptimal",
    "NllOptimal",
    "PseudoBMA",
    "Score",
    "SoftmaxScore",
    "Uniform",
    "WeightRule",
    "Weights",
    "brier_optimal_weights",
    "inverse_loss_weights",
    "least_squares_weights",
    "nll_optimal_weights",
    "pseudo_bma_weights",
    "score_weights",
    "softmax_score_weights",
    "uniform_weights",
    "weights_interval",
]
