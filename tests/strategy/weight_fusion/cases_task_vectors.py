"""Methods that trim, elect or scale task vectors: their cases for the common laws."""

from __future__ import annotations

from tests.strategy.weight_fusion.case import Case

CASES: list[Case] = []
