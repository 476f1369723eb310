from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits, load_wine

from transfuse.data import Arrays
from transfuse.types import DataError, HyperparameterError, Problem, Split


def parts(problem: Problem) -> tuple[Split, Split, Split]:
    return problem.development.train, problem.development.validation, problem.test


def wine() -> pd.DataFrame:
    bunch = load_wine(as_frame=True)
    return bunch.data.assign(cultivar=np.array(["barolo", "grignolino", "barbera"])[bunch.target])


def write(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return str(path)


def build(path: str, target: str | list[str], **fields: Any) -> Problem:
    return Arrays(path=path, target=target, **fields).build(seed=0, folder=Path("unused"))


@pytest.mark.parametrize("name", ["wine.csv", "wine.parquet", "WINE.CSV"])
def test_a_table_of_wines(tmp_path: Path, name: str) -> None:
    frame = wine()
    path = tmp_path / name
    (frame.to_parquet if name.endswith("parquet") else frame.to_csv)(path, index=False)
    problem = build(str(path), "cultivar")
    (task,) = problem.development.tasks
    assert (task.kind, task.outputs, task.classes) == ("classification", 3, ("barbera", "barolo", "grignolino"))
    assert [len(part) for part in parts(problem)] == [106, 36, 36]
    ids = torch.cat([part.ids for part in parts(problem)])
    assert torch.equal(ids.sort().values, torch.arange(178))
    numbers = frame.drop(columns="cultivar").to_numpy()
    train = numbers[problem.development.train.ids.numpy()]
    for part in parts(problem):
        rows = part.ids.numpy()
        expected = (numbers[rows] - train.mean(axis=0)) / train.std(axis=0)
        np.testing.assert_allclose(part.inputs, expected, rtol=1e-5, atol=1e-6)
        assert part.inputs.dtype == torch.float32
        assert [task.classes[label] for label in part.targets["cultivar"]] == frame["cultivar"].iloc[rows].tolist()
    assert problem.notes == (
        "Target `cultivar` is a classification with 3 output(s), inferred from strings (`kinds` changes it).",
    )


def test_csv_parquet_and_npz_give_the_same_problem(tmp_path: Path) -> None:
    bunch = load_diabetes()
    frame = pd.DataFrame(bunch.data, columns=bunch.feature_names).assign(progress=bunch.target)
    np.savez(tmp_path / "d.npz", x=bunch.data, progress=bunch.target)
    paths = [write(frame, tmp_path / "d.csv"), write(frame, tmp_path / "d.parquet"), str(tmp_path / "d.npz")]
    problems = [build(path, "progress") for path in paths]
    assert len({problem.development.fingerprint for problem in problems}) == 1
    assert len({problem.test.inputs.numpy().tobytes() for problem in problems}) == 1
    development = problems[0].development
    (task,) = development.tasks
    assert (task.kind, task.outputs, task.classes) == ("regression", 1, ("progress",))
    values = bunch.target[development.train.ids.numpy()]
    assert task.location == (pytest.approx(values.mean()),)
    assert task.scale == (pytest.approx(values.std()),)
    # targets stay in their own units
    assert development.train.targets["progress"].shape == (len(development.train), 1)
    np.testing.assert_array_equal(development.train.targets["progress"][:, 0], values.astype(np.float32))


def test_two_builds_are_bit_identical_and_seeds_differ(tmp_path: Path) -> None:
    config = Arrays(path=write(wine(), tmp_path / "wine.csv"), target="cultivar")
    first, again, other = (config.build(seed=seed, folder=tmp_path) for seed in (0, 0, 1))
    assert first.development.fingerprint == again.development.fingerprint != other.development.fingerprint
    assert torch.equal(first.test.inputs, again.test.inputs)


def test_several_targets_are_several_tasks(tmp_path: Path) -> None:
    problem = build(write(wine(), tmp_path / "wine.csv"), ["cultivar", "od280/od315_of_diluted_wines", "proline"])
    assert problem.development.kind == "multi_task"
    # integers with many values are values; names fit metric names
    assert [(task.name, task.kind) for task in problem.development.tasks] == [
        ("cultivar", "classification"),
        ("od280_od315_of_diluted_wines", "regression"),
        ("proline", "regression"),
    ]
    assert "named `od280_od315_of_diluted_wines`" in problem.notes[1]
    assert problem.development.input_shape == (11,)
    assert set(problem.test.targets) == {task.name for task in problem.development.tasks}


def test_kinds_overrule_what_is_inferred(tmp_path: Path) -> None:
    bunch = load_wine(as_frame=True)
    path = write(bunch.data.assign(type=bunch.target), tmp_path / "wine.csv")
    inferred, given = build(path, "type"), build(path, "type", kinds={"type": "regression"})
    assert inferred.development.tasks[0].kind == "classification"
    # a head cannot be called `type`: every torch module has an attribute of this name
    assert inferred.development.tasks[0].name == "type_"
    assert inferred.development.tasks[0].classes == ("0", "1", "2")
    assert given.development.tasks[0].kind == "regression"
    assert "as set in `kinds`" in given.notes[0]
    single = build(path, "type", features="alcohol")
    assert single.development.input_shape == (1,)


def test_a_test_file_of_its_own(tmp_path: Path) -> None:
    frame = wine()
    path = write(frame.iloc[::2], tmp_path / "train.csv")
    problem = build(path, "cultivar", test_path=write(frame.iloc[1::2], tmp_path / "test.parquet"))
    train, validation, test = parts(problem)
    assert [len(part) for part in (train, validation, test)] == [67, 22, 89]
    assert test.ids.tolist() == list(range(89, 178))
    numbers = frame.drop(columns="cultivar").to_numpy()
    fitted = numbers[::2][train.ids.numpy()]
    np.testing.assert_allclose(
        test.inputs, (numbers[1::2] - fitted.mean(axis=0)) / fitted.std(axis=0), rtol=1e-5, atol=1e-6
    )


def test_strings_are_one_hot_where_they_are_named(tmp_path: Path) -> None:
    frame = wine().assign(region=["north", "south", "west"] * 59 + ["north"], constant=1.5)
    path = write(frame, tmp_path / "wine.csv")
    unnamed = build(path, "cultivar")
    assert unnamed.development.input_shape == (14,)
    assert "Left out, since they do not hold numbers: `region`" in unnamed.notes[1]
    assert unnamed.notes[2] == "1 of 14 input columns are constant in the training split: kept at 0."
    assert unnamed.development.train.inputs[:, 13].abs().max() == 0
    named = build(path, "cultivar", features=["region", "alcohol"])
    assert "Feature `region` holds strings: one-hot, 3 columns." in named.notes
    for part in parts(named):
        expected = pd.get_dummies(frame["region"]).iloc[part.ids.numpy()].to_numpy(dtype=np.float32)
        np.testing.assert_array_equal(part.inputs[:, 1:], expected)


def test_strings_that_training_rows_do_not_hold_are_zeros(tmp_path: Path) -> None:
    train = wine().assign(region=["north", "south"] * 89)
    test = train.assign(region="mars")
    problem = build(
        write(train, tmp_path / "train.csv"),
        "cultivar",
        features=["region"],
        test_path=write(test, tmp_path / "test.csv"),
    )
    assert problem.development.input_shape == (2,)
    assert problem.test.inputs.abs().max() == 0


def test_pandas_types_of_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array(range(40), dtype="Int64"),
            "flag": pd.array([True, False] * 20, dtype="boolean"),
            "level": pd.Categorical(["low", "high"] * 20),
            "when": pd.date_range("2020-01-01", periods=40),
            "y": [0.5, 1.5, 2.5, 3.5] * 10,
        }
    )
    path = write(frame, tmp_path / "t.parquet")
    problem = build(path, "y", features=["whole", "flag", "level"])
    rows = problem.test.ids.numpy()
    train = np.arange(40)[problem.development.train.ids.numpy()]
    np.testing.assert_allclose(problem.test.inputs[:, 0], (rows - train.mean()) / train.std(), rtol=1e-5)
    np.testing.assert_array_equal(problem.test.inputs[:, 2:], np.eye(2)[1 - (rows % 2 == 1)])
    assert "`level`, `when`" in build(path, "y").notes[1]
    with pytest.raises(DataError, match=r"Column `when` of t\.parquet holds"):
        build(path, "y", features=["when"])


def test_images_and_many_targets_in_npz(tmp_path: Path) -> None:
    bunch = load_digits()
    bits = (bunch.target[:, None] >> np.arange(4)) & 1
    path = tmp_path / "digits.npz"
    np.savez(path, pixels=bunch.images, name=bunch.target.astype(str), bits=bits, halves=bits / 2)
    problem = build(str(path), ["name", "bits", "halves"], features="pixels")
    assert problem.development.input_shape == (1, 8, 8)
    assert [(task.name, task.kind, task.outputs) for task in problem.development.tasks] == [
        ("name", "classification", 10),
        ("bits", "multilabel", 4),
        ("halves", "regression", 4),
    ]
    train = problem.development.train
    pixels = bunch.images[train.ids.numpy()]
    np.testing.assert_allclose(train.inputs[:, 0], (pixels - pixels.mean()) / pixels.std(), rtol=1e-5, atol=1e-6)
    rows = problem.test.ids.numpy()
    np.testing.assert_array_equal(problem.test.targets["bits"], bits[rows])
    np.testing.assert_array_equal(problem.test.targets["name"], bunch.target[rows])
    scale = problem.development.tasks[2].scale
    np.testing.assert_allclose(scale, (bits / 2)[train.ids.numpy()].std(axis=0), rtol=1e-6)


def test_a_rare_class_that_is_not_in_a_split_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=100), "y": ["common"] * 97 + ["rare"] * 3})
    problem = build(write(frame, tmp_path / "r.csv"), "y", test_fraction=0.1)
    absent = [
        name
        for name, part in zip(("train", "validation", "test"), parts(problem), strict=True)
        if 1 not in part.targets["y"]
    ]
    assert "train" not in absent
    assert absent
    assert problem.notes[1:] == tuple(f"Task y: no example of class rare is in the {name} split." for name in absent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_fraction": 0.0}, r"^`test_fraction` should be in \(0, 1\)\. Found `test_fraction = 0\.0`\.$"),
        ({"validation_fraction": 1.0}, r"`validation_fraction` should be in \(0, 1\)"),
        ({"target": []}, "`target` should be at least one name"),
        ({"features": []}, "`features` should be at least one name or null"),
        ({"target": ["a b", "a_b"]}, "`target` should be different names"),
        ({"features": ["x", "y"]}, r"`features` should be without the target\. Found `features = \['y'\]`"),
        ({"kinds": {"z": "regression"}}, r"`kinds` should be by target \(y\)\. Found `kinds = z`"),
        ({"kinds": {"y": "ranking"}}, r"`kinds\.y` should be classification, regression or multilabel"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Arrays(**({"path": "d.csv", "target": "y"} | fields))
