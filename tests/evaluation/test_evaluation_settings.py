from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

import transfuse.evaluation
from transfuse.evaluation import Evaluation
from transfuse.types import HyperparameterError, Task

CONFIG = Path(__file__).parents[2] / "conf" / "evaluation" / "default.yaml"
SHAPE = Task(name="shape", kind="classification", outputs=3)
TAGS = Task(name="tags", kind="multilabel", outputs=3)
SIZE = Task(name="size", kind="regression", outputs=1)


def test_config_holds_every_field_with_its_default() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert config.pop("_target_") == f"{transfuse.evaluation.__name__}.{Evaluation.__name__}"
    assert {**config, "tuned": tuple(config["tuned"])} == asdict(Evaluation())


def test_default_selection_metric_is_that_of_the_kind() -> None:
    assert [Evaluation().metric_for([task]) for task in (SHAPE, TAGS, SIZE)] == ["nll", "nll", "rmse"]
    assert Evaluation().metric_for([SIZE, SHAPE]) == "rmse"


def test_an_unknown_inference_is_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"`inference` should be auto, loop or stacked\. Found .* = vmap`"):
        Evaluation(inference="vmap")  # type: ignore[arg-type]


def test_a_given_metric_has_to_fit_one_of_the_tasks() -> None:
    assert Evaluation(selection_metric="accuracy").metric_for([SHAPE]) == "accuracy"
    assert Evaluation(selection_metric="accuracy").metric_for([SIZE, SHAPE]) == "accuracy"
    with pytest.raises(HyperparameterError, match=r"one of rmse, mae, r2. Found `selection_metric = accuracy`\.$"):
        Evaluation(selection_metric="accuracy").metric_for([SIZE])
    with pytest.raises(HyperparameterError, match=r"Found `selection_metric = f1_micr`. Did you mean `f1_micro`\?"):
        Evaluation(selection_metric="f1_micr").metric_for([TAGS, SIZE])


@pytest.mark.parametrize(
    ("field", "value", "least"), [("cross_fit", 1, 2), ("latency_repeats", 0, 1), ("batch_size", 0, 1)]
)
def test_out_of_range(field: str, value: int, least: int) -> None:
    with pytest.raises(HyperparameterError, match=f"`{field}` should be >= {least}. Found `{field} = {value}`."):
        Evaluation(**{field: value})
    assert getattr(Evaluation(**{field: least}), field) == least


def test_figures_are_drawn_in_a_run_of_its_own_unless_told() -> None:
    assert Evaluation().draws(alone=True) and not Evaluation().draws(alone=False)
    assert Evaluation(figures="always").draws(alone=False) and not Evaluation(figures="never").draws(alone=True)
    with pytest.raises(
        HyperparameterError, match=r"`figures` should be auto, always or never. Found `figures = yes`\."
    ):
        Evaluation(figures="yes")  # type: ignore[arg-type]
