"""Permutation symmetries of networks: which units may change places, and how those of two networks are matched."""

from __future__ import annotations

from transfuse.alignment.activation_matching import ActivationMatching, match_activations
from transfuse.alignment.incoming import incoming
from transfuse.alignment.matcher import Matcher, Pair, Unaligned
from transfuse.alignment.optimal_transport import check_soft, transport_units
from transfuse.alignment.specification import Permutation, Specification, Symbol, View, squared_distance
from transfuse.alignment.specify import NothingToAlignError, specify
from transfuse.alignment.straight_through import StraightThrough
from transfuse.alignment.transport import TransportError, sinkhorn
from transfuse.alignment.unit_correlations import unit_correlations
from transfuse.alignment.verification import AlignmentError, verify
from transfuse.alignment.weight_matching import WeightMatching, match_weights
from transfuse.alignment.zip_matching import zip_units
from transfuse.alignment.zipping import Zipped, check_zip, zip_states

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
    "TransportError",
    "Unaligned",
    "View",
    "WeightMatching",
    "Zipped",
    "check_soft",
    "check_zip",
    "incoming",
    "match_activations",
    "match_weights",
    "sinkhorn",
    "specify",
    "squared_distance",
    "transport_units",
    "unit_correlations",
    "verify",
    "zip_states",
    "zip_units",
]
