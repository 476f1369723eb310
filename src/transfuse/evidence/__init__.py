"""Evidence: intervals that count both seeds and test examples, corrected p-values, verdicts, ranks. Pure functions."""

from transfuse.evidence.bootstrap import hierarchical_bootstrap
from transfuse.evidence.holm import holm
from transfuse.evidence.interval import Interval
from transfuse.evidence.paired import mean_interval, paired_difference
from transfuse.evidence.ranking import Ranking, friedman_nemenyi
from transfuse.evidence.verdict import Verdict, verdict

__all__ = [
    "Interval",
    "Ranking",
    "Verdict",
    "friedman_nemenyi",
    "hierarchical_bootstrap",
    "holm",
    "mean_interval",
    "paired_difference",
    "verdict",
]
