"""Test sets of different seeds that have examples in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from transfuse.report.contests import Entry
from transfuse.report.outputs import read_ids


def common_test_share(entries: Sequence[Entry]) -> float:
    """The share of test examples that two seeds with different test sets have in common, the mean over pairs of seeds.

    `|A and B| / min(|A|, |B|)` for the ids A and B of two test sets; sets are different where their fingerprints are.

    Args:
        entries: finished runs on one data set; one of them a test set is read.

    Returns:
        In [0, 1]; 0 where all share one test set, or predictions are missing.
    """
    folders = {entry.record.fingerprints.get("test"): entry.folder for entry in entries}
    read = [read_ids(folder) for fingerprint, folder in folders.items() if fingerprint is not None]
    sets = [np.unique(ids.numpy()) for ids in read if ids is not None and len(ids) > 0]
    shares = [len(np.intersect1d(a, b, assume_unique=True)) / min(len(a), len(b)) for a, b in combinations(sets, 2)]
    return fmean(shares) if shares else 0.0
