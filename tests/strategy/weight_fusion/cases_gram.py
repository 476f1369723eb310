"""Methods whose result is a combination with coefficients from inner products: their cases for the common laws."""

from __future__ import annotations

from tests.strategy.weight_fusion.case import Case

CASES: list[Case] = []
