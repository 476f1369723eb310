"""What `data=arrays` refuses, and with which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transfuse.data import Arrays
from transfuse.types import DataError

ROWS = 30


def frame(**columns: Any) -> pd.DataFrame:
    """30 rows of two features and a balanced target, with columns replaced or added."""
    random = np.random.default_rng(0)
    base = {"length": random.normal(size=ROWS), "width": random.normal(size=ROWS), "kind": ["a", "b", "c"] * 10}
    return pd.DataFrame(base | columns)


def with_value(row: int, value: float) -> list[float]:
    values = [float(number) for number in range(ROWS)]
    values[row] = values[row + 3] = value
    return values


def refusal(path: Path, target: str | list[str] = "kind", **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        Arrays(path=str(path), target=target, **fields).build(seed=0, folder=path.parent)
    return str(caught.value)


def csv(folder: Path, **columns: Any) -> Path:
    path = folder / "flowers.csv"
    frame(**columns).to_csv(path, index=False)
    return path


def test_files(tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    assert refusal(missing) == f"There is no file {missing}."
    assert refusal(tmp_path) == f"There is no file {tmp_path}."
    (tmp_path / "a.xlsx").write_text("x")
    assert refusal(tmp_path / "a.xlsx") == "a.xlsx is of an unknown type. Known endings: .csv, .parquet, .npz."
    for name, content in (("a.parquet", b"no"), ("a.npz", b"no"), ("a.csv", b""), ("b.csv", b'a,b\n1,2\n1,2,3,4\n"')):
        (tmp_path / name).write_bytes(content)
        ending = Path(name).suffix
        assert f"{name} cannot be read as {ending}: " in refusal(tmp_path / name)


def test_a_missing_test_file(tmp_path: Path) -> None:
    assert "There is no file" in refusal(csv(tmp_path), test_path=str(tmp_path / "test.csv"))


def test_unknown_columns(tmp_path: Path) -> None:
    path = csv(tmp_path)
    assert refusal(path, target="kinds") == (
        "`target`: flowers.csv has no column `kinds`. Did you mean `kind`? It has length, width, kind."
    )
    assert refusal(path, features=["widht"]).startswith(
        "`features`: flowers.csv has no column `widht`. Did you mean `width`?"
    )
    assert refusal(path, target="zzz") == "`target`: flowers.csv has no column `zzz`. It has length, width, kind."


@pytest.mark.parametrize(
    ("value", "what"), [(float("nan"), "missing (NaN)"), (float("inf"), "infinite"), (-1e39, "infinite")]
)
def test_missing_and_infinite_values(tmp_path: Path, value: float, what: str) -> None:
    message = (
        f"Column `width` of flowers.csv has 2 {what} value(s), the first in row 7 (the first row is 0). "
        "Fill in or drop them first."
    )
    assert refusal(csv(tmp_path, width=with_value(7, value))) == message
    assert refusal(csv(tmp_path, width=with_value(7, value)), target="width", features="length") == message


@pytest.mark.parametrize("column", [["a", None, "b"], [True, None, False], [1, None, 2]])
def test_missing_labels(tmp_path: Path, column: list[Any]) -> None:
    assert "Column `kind` of flowers.csv has 10 missing (NaN) value(s), the first in row 1" in refusal(
        csv(tmp_path, kind=column * 10)
    )
    path = tmp_path / "flowers.parquet"
    frame(kind=column * 10).to_parquet(path)
    assert "Column `kind` of flowers.parquet has 10 missing (NaN) value(s), the first in row 1" in refusal(path)


def test_missing_values_in_unused_columns_do_not_matter(tmp_path: Path) -> None:
    path = csv(tmp_path, width=with_value(7, float("nan")))
    problem = Arrays(path=str(path), target="kind", features="length").build(seed=0, folder=tmp_path)
    assert problem.development.input_shape == (1,)


def test_classes(tmp_path: Path) -> None:
    assert refusal(csv(tmp_path, kind="a")) == "Target `kind` holds one class only (a). At least 2 are needed."
    rare = csv(tmp_path, kind=["a", "b"] * 14 + ["c", "c"])
    assert refusal(rare) == (
        "Class c of target kind has 2 example(s). At least 3 are needed, one for each split. "
        "Merge or drop rare classes."
    )
    single = csv(tmp_path, kind=["a", "b"] * 14 + ["b", "c"])
    assert "Class c of target kind has 1 example(s). At least 2 are needed" in refusal(single, test_path=str(single))


def test_a_class_of_another_task_that_training_does_not_hold(tmp_path: Path) -> None:
    path = csv(tmp_path, second=["x"] * (ROWS - 1) + ["y"])
    development = Arrays(path=str(path), target="kind").build(seed=0, folder=tmp_path).development
    held_out = int(development.validation.ids[0])
    path = csv(tmp_path, second=["y" if row == held_out else "x" for row in range(ROWS)])
    assert refusal(path, target=["kind", "second"]) == (
        "Task second: no example of class y is in the training split. Merge or drop it."
    )


def test_too_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    frame().iloc[:9].to_csv(path, index=False)
    assert refusal(path) == "few.csv has 9 row(s). At least 10 are needed."
    frame().iloc[:0].to_csv(path, index=False)
    assert refusal(path) == "few.csv has 0 row(s). At least 10 are needed."
    assert refusal(csv(tmp_path), test_path=str(path)) == "few.csv has 0 row(s). At least 1 are needed."


def test_more_classes_than_a_split_holds(tmp_path: Path) -> None:
    path = csv(tmp_path, kind=[f"k{row % 10}" for row in range(ROWS)])
    assert "Splitting 30 examples into 27 and 3 for test leaves fewer examples than the 10 classes" in refusal(
        path, test_fraction=0.1
    )


def test_targets_that_do_not_fit_their_kind(tmp_path: Path) -> None:
    path = csv(tmp_path)
    assert refusal(path, kinds={"kind": "regression"}) == (
        "Target `kind` holds strings; regression needs numbers. Did you mean classification?"
    )
    assert "Target `length` holds other values than 0 and 1" in refusal(path, "length", kinds={"length": "multilabel"})
    assert refusal(csv(tmp_path, price=2.5), "price") == (
        "Task price: the target is constant in the training split, so nothing can be learned."
    )


def test_features_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    pd.DataFrame({"word": [f"w{row}" for row in range(200)], "y": ["a", "b"] * 100}).to_csv(path, index=False)
    assert "words.csv has no column of numbers besides the target" in refusal(path, "y")
    assert re.search(r"`word` holds 1[0-9]{2} different strings; at most 100", refusal(path, "y", features=["word"]))


def test_mixed_types(tmp_path: Path) -> None:
    path = tmp_path / "mixed.npz"
    np.savez(path, x=np.zeros((ROWS, 2), dtype=complex), kind=np.arange(ROWS) % 2)
    assert refusal(path) == "Array `x` of mixed.npz holds complex128. Numbers, booleans or strings can be used."


def test_a_test_file_that_differs(tmp_path: Path) -> None:
    path, other = csv(tmp_path), tmp_path / "test.csv"
    frame(kind=["a", "b", "d"] * 10).to_csv(other, index=False)
    assert refusal(path, test_path=str(other)) == (
        "Target `kind` of test.csv holds classes that the training file does not: d."
    )
    frame(width="wide").to_csv(other, index=False)
    assert "Feature `width` of test.csv holds strings of shape () a row; in the training" in refusal(
        path, test_path=str(other)
    )
    frame().drop(columns="width").to_csv(other, index=False)
    assert "`features`: test.csv has no column `width`." in refusal(path, test_path=str(other))
    frame(length="long").to_csv(other, index=False)
    assert refusal(path, "length", features="width", test_path=str(other)) == (
        "Target `length` of test.csv should hold 1 number(s) a row."
    )
    frame(length=0.5).to_csv(other, index=False)
    labelled = csv(tmp_path, length=[0, 1] * 15)
    assert "Target `length` of test.csv holds other values than 0 and 1" in refusal(
        labelled, "length", features="width", kinds={"length": "multilabel"}, test_path=str(other)
    )


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    labels = np.arange(ROWS) % 3
    np.savez(path, x=np.array([{"a": 1}] * ROWS, dtype=object), kind=labels)
    assert "array `x` holds pickled Python objects, which can run code and are not read" in refusal(path)
    np.savez(path, x=np.zeros((ROWS - 1, 2)), kind=labels)
    assert refusal(path) == "The arrays of a.npz should have one row an example each. Found rows: `kind` 30, `x` 29."
    np.savez(path, features=np.zeros((ROWS, 2)), kind=labels)
    assert refusal(path) == "`features`: a.npz has no array `x`. It has features, kind."
    np.savez(path, x=np.ones((ROWS, 2)), kind=np.zeros((ROWS, 2, 2)))
    assert refusal(path) == "Target `kind` has shape (30, 2, 2). At most 2 dimensions can be used."
    np.savez(path, x=np.ones((ROWS, 2)), kind=np.zeros((ROWS, 2)))
    assert "`kind` has 2 columns; classification needs one" in refusal(path, kinds={"kind": "classification"})
    values = np.ones((ROWS, 2, 3))
    values[4, 1, 1:] = np.nan
    np.savez(path, x=values, kind=labels)
    assert "Array `x` of a.npz has 2 missing (NaN) value(s), the first in row 4" in refusal(path)
    np.savez(path, x=np.ones((ROWS, 2, 3)), y=np.ones((ROWS, 2)), kind=labels)
    assert "images (more than 2 dimensions) come alone" in refusal(path, features=["x", "y"])
    np.savez(path, x=np.full((ROWS, 2), "word"), kind=labels)
    assert refusal(path) == "Feature `x` holds strings in 2 dimensions; one-hot needs one."


def test_npz_of_one_row_shape_differs_in_the_test_file(tmp_path: Path) -> None:
    train, test = tmp_path / "train.npz", tmp_path / "test.npz"
    labels = np.arange(ROWS) % 3
    np.savez(train, x=np.random.default_rng(0).normal(size=(ROWS, 2)), kind=labels)
    np.savez(test, x=np.ones((ROWS, 3)), kind=labels)
    assert refusal(train, test_path=str(test)) == (
        "Feature `x` of test.npz holds floats of shape (3,) a row; in the training file it holds floats of shape (2,)."
    )
