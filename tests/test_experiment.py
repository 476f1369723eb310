"""Each family on real data, from overrides to the files of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import transfuse
from transfuse.experiment import Prepared, context
from transfuse.tracking import RunRecord
from transfuse.types import IncompatibleStrategyError, NonFiniteError, Problem

DIGITS = ["data=digits", "training.epochs=10", "base_models=seeds", "base_models.count=3"]
TASKS = ["data=digits_tasks", "base_models=per_task", "training.epochs=10"]
NOISE = ["data=digits_noise", "base_models=source", "training.epochs=null", "training.steps=100"]
CASES = {
    "baseline/best_single": DIGITS,
    "baseline/mean_single": DIGITS,
    "output_fusion/average": DIGITS,
    "output_fusion/weighted_average": DIGITS,
    "weight_fusion/uniform_soup": DIGITS,
    "weight_fusion/greedy_soup": DIGITS,
    "baseline/single_task": TASKS,
    "multi_task/joint_sum": TASKS,
    "baseline/scratch": NOISE,
    "parameter_transfer/full_finetune": NOISE,
    "parameter_transfer/lora": NOISE,
    "parameter_transfer/linear_probe": NOISE,
    "structure_transfer/scratch_architecture": NOISE,
    "structure_transfer/net2wider": NOISE,
    "structure_transfer/net2deeper": NOISE,
    "structure_transfer/weight_selection": NOISE,
    "structure_transfer/distill": NOISE,
}
CLASSIFICATION = ("accuracy", "f1_macro", "auroc", "nll", "brier", "ece")
COSTS = ("base_seconds", "fuse_seconds", "parameters", "flops_per_example", "latency_ms", "peak_memory_mb")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def run(outputs: Path, *overrides: str) -> tuple[RunRecord, Path]:
    before = set(outputs.glob("runs/*/*"))
    quiet = ["tracking=off", "trainer.progress=false", "evaluation.figures=never"]
    record = transfuse.run([*overrides, f"paths.outputs={outputs}", *quiet])
    (folder,) = set(outputs.glob("runs/*/*")) - before
    return record, folder


@pytest.mark.parametrize("strategy", CASES)
def test_a_run_of_each_family_leaves_its_results(strategy: str, outputs: Path) -> None:
    record, folder = run(outputs, *CASES[strategy], f"strategy={strategy}")
    assert RunRecord.read(folder) == record
    assert record.status == "finished" and record.strategy == strategy
    assert record.family == strategy.partition("/")[0]
    prefix = "test/digit/" if "digits_tasks" in CASES[strategy][0] else "test/"
    assert all(f"{prefix}{metric}" in record.metrics for metric in CLASSIFICATION)
    assert all(np.isfinite(value) for value in record.metrics.values())
    assert set(COSTS) <= set(record.cost) and all(record.cost[name] >= 0 for name in COSTS)
    assert len(record.fingerprints["test"]) == 64
    predictions = load_file(folder / "predictions.safetensors")
    labels, outputs_NC = predictions["digit/labels"], predictions["digit/outputs"]
    if outputs_NC.ndim == 2:
        accuracy = (outputs_NC.argmax(dim=1) == labels).double().mean().item()
        assert record.metrics[f"{prefix}accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert len(predictions["ids"]) == len(labels) == len(set(predictions["ids"].tolist()))
    assert (folder / "fused" / "model.safetensors").exists() == (strategy != "baseline/mean_single")


def test_two_runs_of_one_config_are_bit_identical(tmp_path: Path) -> None:
    overrides = [*DIGITS, "strategy=weight_fusion/greedy_soup", "training.epochs=3"]
    (one, first), (two, second) = run(tmp_path / "a", *overrides), run(tmp_path / "b", *overrides)
    assert one.metrics == two.metrics
    assert (first / "fused" / "model.safetensors").read_bytes() == (second / "fused" / "model.safetensors").read_bytes()
    assert [member["key"] for member in one.base_models] == [member["key"] for member in two.base_models]


def test_independent_networks_collapse_in_weight_space_and_not_in_output_space(outputs: Path) -> None:
    soup, _ = run(outputs, *DIGITS, "strategy=weight_fusion/uniform_soup")
    greedy, _ = run(outputs, *DIGITS, "strategy=weight_fusion/greedy_soup")
    best, _ = run(outputs, *DIGITS, "strategy=baseline/best_single")
    mean, _ = run(outputs, *DIGITS, "strategy=baseline/mean_single")
    average, _ = run(outputs, *DIGITS, "strategy=output_fusion/average")
    assert soup.metrics["test/accuracy"] < mean.metrics["test/accuracy"] - 0.2
    assert "do not share an initialization" in str(soup.fused["diagnostics"])
    assert greedy.metrics["fit/nll"] <= best.metrics["fit/nll"]
    assert average.metrics["test/nll"] < mean.metrics["test/nll"]


def test_networks_of_one_start_do_not_collapse_in_weight_space(outputs: Path) -> None:
    shared = ["data=digits", "training.epochs=10", "base_models=finetuned", "base_models.count=3"]
    soup, _ = run(outputs, *shared, "strategy=weight_fusion/uniform_soup")
    mean, _ = run(outputs, *shared, "strategy=baseline/mean_single")
    assert soup.metrics["test/accuracy"] > mean.metrics["test/accuracy"] - 0.02


def test_the_scratch_architecture_is_scratch_bit_for_bit(outputs: Path) -> None:
    scratch, one = run(outputs, *NOISE, "strategy=baseline/scratch")
    control, two = run(outputs, *NOISE, "strategy=structure_transfer/scratch_architecture")
    weights, others = (load_file(folder / "fused" / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert scratch.metrics == control.metrics


def test_fitted_weights_log_an_honest_and_an_in_sample_score(outputs: Path) -> None:
    record, _ = run(outputs, *DIGITS, "strategy=output_fusion/weighted_average")
    assert record.metrics["fit/nll"] <= record.metrics["validation/nll"]
    weights = record.fused["weights"]["digit"]
    assert sum(weights) == pytest.approx(1.0) and min(weights) >= 0
    plain, _ = run(outputs, *DIGITS, "strategy=output_fusion/average")
    assert not any(name.startswith("fit/") for name in plain.metrics)


def test_a_strategy_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleStrategyError, match="multi_task/joint_sum is for multi_task problems"):
        run(tmp_path, *DIGITS, "strategy=multi_task/joint_sum")
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_training_stops_and_names_model_and_epoch(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"base model seeds-0: .*epoch \d+"):
        run(tmp_path, *DIGITS, "strategy=output_fusion/average", "training.lr=1e30", "training.optimizer=sgd")
    assert not list(tmp_path.glob("store/*/record.json"))
    (folder,) = tmp_path.glob("runs/*/*")
    record = RunRecord.read(folder)
    assert record.status == "failed" and str(record.error).startswith("NonFiniteError: base model seeds-0")


def test_what_a_failed_run_trained_is_in_its_record(tmp_path: Path) -> None:
    finetune = ["strategy=parameter_transfer/full_finetune", "strategy.lr_factor=1e35", "training.steps=20"]
    with pytest.raises(NonFiniteError, match="parameter_transfer/full_finetune"):
        run(tmp_path, *NOISE, *finetune)
    (folder,) = tmp_path.glob("runs/*/*")
    record = RunRecord.read(folder)
    assert record.status == "failed" and record.problem["kind"] == "transfer"
    assert [(model["name"], model["trained_here"]) for model in record.base_models] == [("source", True)]


def test_the_head_of_a_users_own_module_is_reset_too(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outputs / "own_module.py").write_text(
        "from torch import nn\n\n\ndef network():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))\n"
    )
    monkeypatch.syspath_prepend(str(outputs))
    own = ["model=custom", "model.module=own_module.network", "strategy=parameter_transfer/full_finetune"]
    record, _ = run(outputs, *NOISE, *own)
    report = record.fused["diagnostics"]
    assert report["matched"] == ["module.1.weight", "module.1.bias"] and report["coverage"] == 1.0
    assert report["fresh"] == ["module.3.weight", "module.3.bias"]


def test_a_strategy_has_no_way_to_the_test_split(tmp_path: Path, prepared: Prepared) -> None:
    """Walks all data that the context reaches; no tensor of it holds a test example, no object holds the problem."""
    test = prepared.problem.test
    reached = list(_reachable(context(prepared)))
    assert any(item is prepared.problem.development.train.inputs for item in reached)  # the walk finds what is there
    assert not any(isinstance(item, Problem) or item is test for item in reached)
    tensors = [item for item in reached if isinstance(item, Tensor)]
    assert not any(item.data_ptr() == test.inputs.data_ptr() for item in tensors)
    batches = [item for item in tensors if item.shape[1:] == test.inputs.shape[1:]]
    images = {example.numpy().tobytes() for batch in batches for example in batch}
    assert not images & {example.numpy().tobytes() for example in test.inputs}


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    from hydra import compose, initialize_config_dir

    from transfuse.config import read
    from transfuse.experiment import prepare
    from transfuse.suggest import CONF

    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*DIGITS, f"paths.outputs={tmp_path}", "tracking=off"])
    return prepare(read(config, tmp_path / "run"))


def _reachable(item: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Everything that can be reached from an object: fields, attributes, entries, bound objects, closures."""
    seen = set() if seen is None else seen
    if id(item) in seen or isinstance(item, (str, bytes, int, float, type, ModuleType, type(None))):
        return
    seen.add(id(item))
    yield item
    if isinstance(item, Tensor):
        return
    inner: list[Any] = [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]
    inner += [getattr(item, "__self__", None), *getattr(item, "__dict__", {}).values()]
    if isinstance(item, dict):
        inner += [*item.keys(), *item.values()]
    elif isinstance(item, (list, tuple, set, frozenset)):
        inner += list(item)
    elif is_dataclass(item):
        inner += [getattr(item, field.name) for field in fields(item)]
    for child in inner:
        yield from _reachable(child, seen)
