"""Permutation symmetries of networks: which units may change places, and how those of two networks are matched."""

from __future__ import annotations

from transfuse.alignment.activation_matching import ActivationMatching, match_activations
from transfuse.alignment.matcher import Matcher, Pair, Unaligned
from transfuse.alignment.specification import Permutation, Specification, Symbol, View, squared_distance
from transfuse.alignment.specify import NothingToAlignError, specify
from transfuse.alignment.straight_through import StraightThrough
from transfuse.alignment.verification import AlignmentError, verify
from transfuse.alignment.weight_matching import WeightMatching, match_weights

__all__ = [
    "ActivationMatching",
    "AlignmentError",
    "Matcher",
    "NothingToAlignError",
    "Pair",
    "Permutation",
    "Specification",
    "StraightThrough",
    "Symbol",
    "Unaligned",
    "View",
    "WeightMatching",
    "match_activations",
    "match_weights",
    "specify",
    "squared_distance",
    "verify",
]
