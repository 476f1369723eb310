"""Methods that average snapshots of one training: their cases for the common laws."""

from __future__ import annotations

from tests.strategy.weight_fusion.case import Case

CASES: list[Case] = []
