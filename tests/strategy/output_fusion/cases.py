"""The methods that the common properties are tested for: one line a method (or an important setting of it)."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion import (
    Average,
    Borda,
    LogitAverage,
    LogOpinionPool,
    MajorityVote,
    Median,
    OutputFusion,
    RankAverage,
    TrimmedMean,
    WeightedAverage,
)
from transfuse.strategy.weights import InverseLoss, LeastSquaresOptimal, NllOptimal, Score, SoftmaxScore, Uniform


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configured method.

    Attributes:
        name: shown by pytest.
        strategy: the method; it is tested for all kinds of task in `strategy.kinds`.
        convex: whether equal members must give that member.
    """

    name: str
    strategy: OutputFusion
    convex: bool = True


TIGHT = NllOptimal(tolerance=1e-11)  # weights of two fits then agree, not only their objectives

CASES = [
    Case(name="average", strategy=Average()),
    Case(name="borda", strategy=Borda(), convex=False),
    Case(name="borda-given", strategy=Borda(temperature=0.5), convex=False),
    Case(name="geometric_mean", strategy=LogOpinionPool()),
    Case(name="geometric_mean-score", strategy=LogOpinionPool(weights=Score(power=2.0))),
    Case(name="logit_average", strategy=LogitAverage()),
    Case(name="majority_vote", strategy=MajorityVote(), convex=False),
    Case(name="majority_vote-optimal", strategy=MajorityVote(weights=TIGHT), convex=False),
    Case(name="median", strategy=Median()),
    Case(name="rank_average", strategy=RankAverage(), convex=False),
    Case(name="trimmed_mean", strategy=TrimmedMean()),
    Case(name="weighted_average", strategy=WeightedAverage(weights=TIGHT)),
    Case(name="weighted_average-logit", strategy=WeightedAverage(weights=TIGHT, space="logit")),
    Case(name="weighted_average-uniform", strategy=WeightedAverage(weights=Uniform())),
    Case(name="weighted_average-score", strategy=WeightedAverage(weights=Score(power=2.0))),
    Case(name="weighted_average-softmax_score", strategy=WeightedAverage(weights=SoftmaxScore())),
    Case(name="weighted_average-inverse_loss", strategy=WeightedAverage(weights=InverseLoss(metric="brier"))),
    Case(name="weighted_average-inverse_rmse", strategy=WeightedAverage(weights=InverseLoss(metric="rmse"))),
    Case(name="weighted_average-least_squares", strategy=WeightedAverage(weights=LeastSquaresOptimal())),
]
