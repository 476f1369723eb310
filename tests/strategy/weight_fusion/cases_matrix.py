"""Methods of whole matrices: their cases for the common laws."""

from __future__ import annotations

from tests.strategy.weight_fusion.case import Case

CASES: list[Case] = []
