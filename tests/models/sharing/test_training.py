"""Each way to share through whole runs: trained, stored, written and read back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import transfuse
from transfuse.data import DigitsTasks
from transfuse.models import build_mlp, predict
from transfuse.models.sharing import CGC, MTAN, PLE, CrossStitch, DSelectK, MMoE, Sharing
from transfuse.tracking import RunRecord
from transfuse.types import ConfigError

SOFT: dict[str, Sharing] = {
    "cross_stitch": CrossStitch(),
    "mmoe": MMoE(),
    "cgc": CGC(),
    "ple": PLE(),
    "dselect_k": DSelectK(),
    "mtan": MTAN(),
}
QUICK = ["data=digits_tasks", "model.widths=[16,16]", "training.epochs=4", "training.lr=0.02"]
QUIET = ["tracking=off", "trainer.progress=false", "trainer=cpu", "evaluation.figures=never"]


def run(outputs: Path, *overrides: str) -> tuple[RunRecord, Path]:
    before = set(outputs.glob("runs/*/*"))
    record = transfuse.run([*QUICK, *overrides, f"paths.outputs={outputs}", *QUIET])
    (folder,) = set(outputs.glob("runs/*/*")) - before
    return record, folder


@pytest.mark.parametrize("strategy", ["joint_sum", "upgrad"])
@pytest.mark.parametrize("name", SOFT)
def test_a_run_learns_and_what_it_writes_is_what_it_tested(name: str, strategy: str, tmp_path: Path) -> None:
    record, folder = run(tmp_path, f"model/sharing={name}", f"strategy=multi_task/{strategy}")
    assert record.status == "finished"
    assert record.metrics["test/digit/accuracy"] > 0.5 and record.metrics["test/parity/accuracy"] > 0.75
    problem = DigitsTasks().build(seed=0, folder=tmp_path)
    make = partial(build_mlp, widths=(16, 16))
    network = SOFT[name].build(make, input_shape=problem.development.input_shape, tasks=problem.development.tasks)
    network.load_state_dict(load_file(folder / "fused" / "model.safetensors"))
    stored = load_file(folder / "predictions.safetensors")
    found = predict(network.eval(), problem.test.inputs)
    assert all(torch.equal(found[task], stored[f"{task}/outputs"]) for task in ("digit", "parity", "value"))


def test_members_of_a_shared_network_are_stored_once(tmp_path: Path) -> None:
    pool = ["model/sharing=mmoe", "base_models=seeds", "base_models.count=2", "strategy=weight_fusion/uniform_soup"]
    (first, one), (second, two) = run(tmp_path, *pool), run(tmp_path, *pool)
    assert [member["trained_here"] for member in first.base_models] == [True, True]
    assert [member["trained_here"] for member in second.base_models] == [False, False]
    assert first.metrics == second.metrics
    weights, others = (load_file(folder / "fused" / "model.safetensors") for folder in (one, two))
    assert any(key.startswith("experts.3.") for key in weights)
    assert all(torch.equal(value, others[key]) for key, value in weights.items())


def test_one_network_a_task_is_the_same_however_networks_share(tmp_path: Path) -> None:
    hard, _ = run(tmp_path, "strategy=baseline/single_task")
    for name in ("mmoe", "mtan"):
        soft, _ = run(tmp_path, "strategy=baseline/single_task", f"model/sharing={name}")
        assert [member["key"] for member in soft.base_models] == [member["key"] for member in hard.base_models]
        assert not any(member["trained_here"] for member in soft.base_models)
        assert soft.metrics == hard.metrics


def test_a_module_of_ones_own_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    custom = ["data=digits_tasks", "model=custom", "model.module=torch.nn.Flatten", "strategy=multi_task/joint_sum"]
    with pytest.raises(ConfigError, match=r"Found model=custom and sharing=mmoe. Did you mean sharing=hard\?"):
        transfuse.run([*custom, "model/sharing=mmoe", f"paths.outputs={tmp_path}", *QUIET])
    assert list(tmp_path.rglob("*")) == []
