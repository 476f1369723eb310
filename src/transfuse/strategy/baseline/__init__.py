"""Baselines: what every other strategy is compared with."""

from transfuse.strategy.baseline.base import Baseline
from transfuse.strategy.baseline.best_single import BestSingle
from transfuse.strategy.baseline.mean_single import MeanSingle
from transfuse.strategy.baseline.scratch import Scratch
from transfuse.strategy.baseline.single_task import SingleTask

__all__ = ["Baseline", "BestSingle", "MeanSingle", "Scratch", "SingleTask"]
