"""Evidence: intervals that count both seeds and test examples, corrected p-values, and verdicts. Pure functions."""

from transfuse.evidence.holm import holm
from transfuse.evidence.interval import Interval
from transfuse.evidence.paired import mean_interval, paired_difference
from transfuse.evidence.verdict import Verdict, verdict

__all__ = ["Interval", "Verdict", "holm", "mean_interval", "paired_difference", "verdict"]
