"""Ranges of hyper-parameters that several methods have."""

from __future__ import annotations

from transfuse.types import HyperparameterError


def require_positive(field: str, value: float) -> None:
    """Raises `HyperparameterError` unless `value` is > 0 and finite."""
    if not 0 < value < float("inf"):
        raise HyperparameterError(f"`{field}` should be > 0. Found `{field} = {value}`.")


def require_nonnegative(field: str, value: float) -> None:
    """Raises `HyperparameterError` unless `value` is >= 0 and finite."""
    if not 0 <= value < float("inf"):
        raise HyperparameterError(f"`{field}` should be >= 0. Found `{field} = {value}`.")


def require_share(field: str, value: float) -> None:
    """Raises `HyperparameterError` unless `value` is in (0, 1]."""
    if not 0 < value <= 1:
        raise HyperparameterError(f"`{field}` should be in (0, 1]. Found `{field} = {value}`.")
