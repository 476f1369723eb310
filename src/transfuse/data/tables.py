"""A user's own file (.csv, .parquet, .npz) as named NumPy arrays, checked before anything uses them."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from transfuse.types import DataError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Content = Literal["floats", "integers", "booleans", "strings", "other"]
_CONTENT: dict[str, Content] = {"f": "floats", "i": "integers", "u": "integers", "b": "booleans"}
_SHOWN = 20  # names that a message lists


@dataclass(frozen=True, kw_only=True)
class Table:
    """The content of a file.

    Attributes:
        file: its name, for messages.
        part: what its parts are called: `column` or `array`.
        columns: name -> (N,) values, in an .npz (N, ...). Strings are object arrays of `str`.
    """

    file: str
    part: Literal["column", "array"]
    columns: Mapping[str, Array]

    def pick(self, names: Sequence[str], field: str) -> dict[str, Array]:
        """The columns of these names, each of a type that can be used, complete and finite.

        Args:
            names: of columns.
            field: the config's field that asks for them, for messages.

        Raises:
            DataError: unknown name, unusable type, missing or infinite values.
        """
        for name in names:
            if name not in self.columns:
                raise DataError(f"`{field}`: {self.file} has no {self.part} `{name}`. {self._nearest(name)}")
            self._check_values(name)
        return {name: self.columns[name] for name in names}

    def rows(self, names: Sequence[str], *, least: int) -> int:
        """The number of rows of these columns.

        Raises:
            DataError: they differ, or are fewer than `least`.
        """
        found = {name: len(self.columns[name]) for name in names}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"`{name}` {number}" for name, number in found.items())
            raise DataError(f"The arrays of {self.file} should have one row an example each. Found rows: {listed}.")
        number = next(iter(found.values()))
        if number < least:
            raise DataError(f"{self.file} has {number} row(s). At least {least} are needed.")
        return number

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.columns, n=3, cutoff=0.5)
        question = f"Did you mean {' or '.join(f'`{other}`' for other in near)}? " if near else ""
        more = ", ..." if len(self.columns) > _SHOWN else ""
        return f"{question}It has {', '.join(list(self.columns)[:_SHOWN])}{more}."

    def _check_values(self, name: str) -> None:
        import pandas as pd

        values = self.columns[name]
        self._refuse(name, "missing (NaN)", np.asarray(pd.isna(values)))
        if values.dtype.kind == "f":
            # what float32 cannot hold is infinite to a network
            self._refuse(name, "infinite", np.abs(values) > np.finfo(np.float32).max)
        if content(values) == "other":
            found = sorted({type(value).__name__ for value in values.flat}) if values.dtype == object else values.dtype
            raise DataError(
                f"{self.part.capitalize()} `{name}` of {self.file} holds {found}. "
                f"Numbers, booleans or strings can be used."
            )

    def _refuse(self, name: str, what: str, bad: NDArray[np.bool_]) -> None:
        if not bad.any():
            return
        rows_N = bad.reshape(len(bad), -1).any(axis=1)
        raise DataError(
            f"{self.part.capitalize()} `{name}` of {self.file} has {int(bad.sum())} {what} value(s), the first in row "
            f"{int(rows_N.argmax())} (the first row is 0). Fill in or drop them first."
        )


def content(values: Array) -> Content:
    """What an array holds."""
    if values.dtype == object and all(isinstance(value, str) for value in values.flat):
        return "strings"
    return _CONTENT.get(values.dtype.kind, "other")


def read_table(path: Path) -> Table:
    """Reads a file by its ending.

    Raises:
        DataError: missing, of an unknown type, or not readable as what its ending says.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if not path.is_file():
        raise DataError(f"There is no file {path.absolute()}.")
    ending = path.suffix.lower()
    if ending not in readers:
        raise DataError(f"{path.name} is of an unknown type. Known endings: {', '.join(readers)}.")
    try:
        columns = readers[ending](path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as {ending}: {error}") from error
    return Table(file=path.name, part="array" if ending == ".npz" else "column", columns=columns)


def _read_csv(path: Path) -> dict[str, Array]:
    import pandas as pd

    return _columns(pd.read_csv(path, low_memory=False))


def _read_parquet(path: Path) -> dict[str, Array]:
    import pandas as pd

    return _columns(pd.read_parquet(path, engine="pyarrow"))


def _read_npz(path: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an archive that numpy.savez writes.")
    columns = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                values: Array = archive[name]
            except ValueError as error:
                raise ValueError(
                    f"array `{name}` holds pickled Python objects, which can run code and are not read; "
                    f"store numbers or strings of one type ({error})."
                ) from error
            if values.ndim == 0:
                values = values[np.newaxis]
            if values.dtype.kind == "S":
                values = np.char.decode(values, "utf-8")
            columns[name] = values.astype(object) if values.dtype.kind == "U" else values
    return columns


def _columns(frame: pd.DataFrame) -> dict[str, Array]:
    return {str(name): _plain(frame[name]) for name in frame.columns}


def _plain(series: pd.Series[Any]) -> Array:
    """One of pandas' many column types as float64, int64, bool, or an object array."""
    import pandas as pd

    values = series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series
    held = pd.api.types.infer_dtype(values, skipna=True)
    complete = not values.isna().any()
    if held in ("floating", "mixed-integer-float") or (held == "integer" and not complete):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    if held == "integer":
        return values.to_numpy(dtype=np.int64)
    if held == "boolean" and complete:
        return values.to_numpy(dtype=np.bool_)
    return values.to_numpy(dtype=object)
