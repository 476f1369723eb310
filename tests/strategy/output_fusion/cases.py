"""The methods that the common properties are tested for: one line a method (or an important setting of it)."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion import (
    Average,
    Borda,
    GreedySelection,
    InverseVariance,
    LeastSquares,
    LogitAverage,
    LogOpinionPool,
    LogPoolOptimal,
    MajorityVote,
    Median,
    OutputFusion,
    PerClassWeights,
    PseudoBMA,
    RankAverage,
    Stacking,
    SuperLearner,
    TemperatureScaled,
    TrimmedMean,
    WeightedAverage,
)
from transfuse.strategy.weights import (
    BrierOptimal,
    InverseLoss,
    LeastSquaresOptimal,
    NllOptimal,
    Score,
    SoftmaxScore,
    Uniform,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configured method.

    Attributes:
        name: shown by pytest.
        strategy: the method; it is tested for all kinds of task in `strategy.kinds`.
        convex: whether equal members must give that member.
        simplex: whether weights, where there is one a member, must sum to 1.
    """

    name: str
    strategy: OutputFusion
    convex: bool = True
    simplex: bool = True


TIGHT = NllOptimal(tolerance=1e-11)  # weights of two fits then agree, not only their objectives

CASES = [
    Case(name="average", strategy=Average()),
    Case(name="borda", strategy=Borda(), convex=False),
    Case(name="borda-given", strategy=Borda(temperature=0.5), convex=False),
    Case(name="geometric_mean", strategy=LogOpinionPool()),
    Case(name="geometric_mean-score", strategy=LogOpinionPool(weights=Score(power=2.0))),
    Case(name="greedy_selection", strategy=GreedySelection()),
    Case(name="greedy_selection-brier", strategy=GreedySelection(metric="brier", replacement=False)),
    Case(name="greedy_selection-rmse", strategy=GreedySelection(metric="rmse", init=1)),
    Case(name="inverse_variance", strategy=InverseVariance()),
    Case(name="inverse_variance-mse", strategy=InverseVariance(variance="mse")),
    Case(name="least_squares", strategy=LeastSquares()),
    Case(name="least_squares-affine", strategy=LeastSquares(constraint="affine", ridge=0.1)),
    Case(name="least_squares-none", strategy=LeastSquares(constraint="none", intercept=True), convex=False),
    Case(name="least_squares-nonnegative", strategy=LeastSquares(constraint="nonnegative"), convex=False),
    Case(name="log_pool_optimal", strategy=LogPoolOptimal(), convex=False, simplex=False),
    Case(name="log_pool_optimal-one", strategy=LogPoolOptimal(sum="one", ridge=0.01)),
    Case(name="logit_average", strategy=LogitAverage()),
    Case(name="majority_vote", strategy=MajorityVote(), convex=False),
    Case(name="majority_vote-optimal", strategy=MajorityVote(weights=TIGHT), convex=False),
    Case(name="median", strategy=Median()),
    Case(name="per_class_weights", strategy=PerClassWeights(), convex=False),
    Case(name="per_class_weights-probability", strategy=PerClassWeights(space="probability", penalty=0.0)),
    Case(name="pseudo_bma", strategy=PseudoBMA(samples=100)),
    Case(name="pseudo_bma-plain", strategy=PseudoBMA(bootstrap=False)),
    Case(name="rank_average", strategy=RankAverage(), convex=False),
    Case(name="stacking", strategy=Stacking(), convex=False),
    Case(name="stacking-ridge", strategy=Stacking(learner="ridge", penalty=1.0), convex=False),
    Case(name="stacking-zero", strategy=Stacking(prior="zero", bias=False), convex=False),
    Case(name="super_learner", strategy=SuperLearner(candidates=[Average(), Median(), LogitAverage()])),
    Case(
        name="super_learner-mixture",
        strategy=SuperLearner(candidates=[Average(), WeightedAverage(weights=TIGHT)], discrete=False),
    ),
    Case(
        name="super_learner-regression",
        strategy=SuperLearner(candidates=[Median(), LeastSquares()], discrete=False),
    ),
    Case(name="temperature_scaled", strategy=TemperatureScaled(), convex=False),
    Case(name="temperature_scaled-labels", strategy=TemperatureScaled(accept="always", per_label=True), convex=False),
    Case(
        name="temperature_scaled-both",
        strategy=TemperatureScaled(inner=WeightedAverage(weights=TIGHT), where="both", accept="always"),
        convex=False,
    ),
    Case(name="trimmed_mean", strategy=TrimmedMean()),
    Case(name="weighted_average", strategy=WeightedAverage(weights=TIGHT)),
    Case(name="weighted_average-logit", strategy=WeightedAverage(weights=TIGHT, space="logit")),
    Case(name="weighted_average-uniform", strategy=WeightedAverage(weights=Uniform())),
    Case(name="weighted_average-score", strategy=WeightedAverage(weights=Score(power=2.0))),
    Case(name="weighted_average-softmax_score", strategy=WeightedAverage(weights=SoftmaxScore())),
    Case(name="weighted_average-inverse_loss", strategy=WeightedAverage(weights=InverseLoss(metric="brier"))),
    Case(name="weighted_average-inverse_rmse", strategy=WeightedAverage(weights=InverseLoss(metric="rmse"))),
    Case(name="weighted_average-brier_optimal", strategy=WeightedAverage(weights=BrierOptimal())),
    Case(name="weighted_average-least_squares", strategy=WeightedAverage(weights=LeastSquaresOptimal())),
]
