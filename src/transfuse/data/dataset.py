"""The contract of every data set: hyper-parameters in fields, `build` makes the problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from transfuse.types import HyperparameterError, Problem


class Dataset(ABC):
    """A recipe for a problem. Concrete ones are frozen dataclasses, one a file, named like their config."""

    @property
    def name(self) -> str:
        """The config's stem, such as `digits`."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def build(self, *, seed: int, folder: Path) -> Problem:
        """Reads, splits and scales the data; equal arguments give bit-identical tensors.

        Args:
            seed: of the run; decides splits, subsets and noise.
            folder: where downloaded data lie, made when something is downloaded.

        Raises:
            DataError: the data are missing, damaged or too small for the splits asked for.
        """


def require(holds: bool, field: str, rule: str, value: object) -> None:
    """Raises `HyperparameterError` with the field, the rule and the value, unless `holds`."""
    if not holds:
        raise HyperparameterError(f"`{field}` should be {rule}. Found `{field} = {value}`.")


def require_fraction(field: str, value: float) -> None:
    """Raises `HyperparameterError` unless `value` is in (0, 1)."""
    require(0 < value < 1, field, "in (0, 1)", value)
