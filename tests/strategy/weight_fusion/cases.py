"""The per-tensor methods, and what their formulas promise: the common laws run over this list.

A new per-tensor method adds one line to `CASES`, or to the list of its group.
"""

from __future__ import annotations

from tests.strategy.weight_fusion.case import Case
from tests.strategy.weight_fusion.cases_gram import CASES as GRAM
from tests.strategy.weight_fusion.cases_masks import CASES as MASKS
from tests.strategy.weight_fusion.cases_matrix import CASES as MATRIX
from tests.strategy.weight_fusion.cases_task_vectors import CASES as TASK_VECTORS
from tests.strategy.weight_fusion.cases_trajectory import CASES as TRAJECTORY
from transfuse.strategy.weight_fusion import LinearMerge, UniformSoup

CASES = [
    Case(UniformSoup(), lambda values_KB, base_B: values_KB.mean(0), linear=True, symmetric=True),
    Case(LinearMerge(), lambda values_KB, base_B: values_KB.mean(0), linear=True, symmetric=True),
    *TASK_VECTORS,
    *MASKS,
    *GRAM,
    *MATRIX,
    *TRAJECTORY,
]
