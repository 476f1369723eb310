"""The commands as a user types them: each in a process of its own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from transfuse.cli import main, report

Command = Callable[..., tuple[int, str]]
HEAVY = ("torch", "pytorch_lightning", "mlflow")
QUICK = ("training.epochs=1", "base_models.count=2", "tracking=off", "trainer.progress=false")


@pytest.fixture
def transfuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Calls the command in this process, in `tmp_path`; returns its exit code and what it printed as errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    root, ours = logging.getLogger(), logging.getLogger("transfuse")
    handlers, levels = list(root.handlers), (root.level, ours.level)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["transfuse", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(levels[0])
        return int(end.value.code or 0), capfd.readouterr().err

    return call


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_help_and_config_are_printed_without_heavy_imports(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from transfuse.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('LOADED', loaded, code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "LOADED [] 0" in done.stdout, done.stderr
    assert "strategy" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.epochs=3", "`trainig.epochs` is no key of the config. Did you mean training"),
        ("training.epoch=3", "`training.epoch` is no key of the config. Did you mean training.epochs"),
        ("stratgy=output_fusion/average", "`stratgy` is no key of the config. Did you mean strategy?"),
        ("strategy=output_fusion/averge", "no option of the group `strategy`. Did you mean output_fusion/average"),
        ("data=digit", "`data=digit` is no option of the group `data`. Did you mean digits"),
        ("training.lr=quick", "`training.lr` should be a number. Found `training.lr = 'quick'`."),
        ("training.lr=-1", "`training.lr` should be > 0 and finite. Found `training.lr = -1.0`."),
        ("training.steps=5", "Exactly one of `training.epochs` and `training.steps` should be set."),
        ("evaluation.tuned=[training.lrr]", "`evaluation.tuned` names training.lrr. Did you mean training.lr"),
        ("evaluation.tuned=[seed]", "`evaluation.tuned` should name settings of training or base_models"),
        ("+training.typo=1", "`training.typo` is no key of the config."),
        ("+typo=1", "`typo` is no key of the config."),
        ("seed=-1", "`seed` should be an integer >= 0."),
        ("model.widths=[0]", "`model.widths` should be"),
        ("data=arrays", "`data.path` needs a value"),
        ("strategy=multi_task/joint_sum", "multi_task/joint_sum is for multi_task problems. Found data=digits"),
        (
            "base_models=checkpoints",
            "`base_models.count` is no key of the chosen option of `base_models`.",
        ),
        ("strategy=average", "Did you mean output_fusion/average?"),
        ("strategy/weights=unifrm", "no option of the group `strategy/weights`. Did you mean uniform?"),
        (
            "model.arguments.width=3",
            "`model.arguments` is a mapping of your own. Write 'model.arguments={width: ...}'.",
        ),
        ("model=null", "Config group override must be a string or a list"),
        ("paths.outputs=''", "`paths.outputs` should be a folder."),
        ("training.lr=inf", "`training.lr` should be > 0 and finite."),
        ("trainer.precision=foo", "`trainer.precision` should be 32-true or"),
        ("trainer.devices=x", "`trainer.devices` should be auto or >= 1."),
        ("data.test_fraction=7", "`data.test_fraction` should be"),
        ("evaluation.selection_metric=acuracy", "Did you mean `accuracy`"),
        ("strategy/weights=given", "`strategy.weights.values` should have 2 entries (one a member). Found 0."),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_nothing_is_written(
    override: str, message: str, transfuse: Command, tmp_path: Path
) -> None:
    code, errors = transfuse(override, *QUICK)
    assert code == 1
    assert message in errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*")) == []


def test_a_pool_that_does_not_fit_is_told(transfuse: Command, tmp_path: Path) -> None:
    code, errors = transfuse("base_models=source", "tracking=off")
    assert code == 1
    assert "base_models=source is for transfer problems. Found data=digits" in errors
    assert list(tmp_path.rglob("*")) == []


def test_a_typo_in_a_sweep_starts_no_job(transfuse: Command, tmp_path: Path) -> None:
    code, errors = transfuse("-m", "strategy=output_fusion/average,output_fusion/averge", *QUICK)
    assert code == 1
    assert "Did you mean output_fusion/average" in errors
    assert list(tmp_path.rglob("*")) == []


def test_an_outputs_folder_that_cannot_be_written_is_told(transfuse: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for mode in ([], ["-m"]):
        code, errors = transfuse(*mode, "paths.outputs=file/outputs", *QUICK)
        assert code == 1
        assert "`paths.outputs`" in errors and "file/outputs" in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_run_can_be_repeated_from_its_own_folder(transfuse: Command, tmp_path: Path) -> None:
    assert transfuse("strategy=output_fusion/average", "seed=3", *QUICK) == (0, "")
    (first,) = (tmp_path / "outputs" / "runs").glob("*/*")
    assert transfuse("--config-path", str(first / ".hydra"), "--config-name", "config") == (0, "")
    (second,) = set((tmp_path / "outputs" / "runs").glob("*/*")) - {first}
    records = [json.loads((folder / "record.json").read_text()) for folder in (first, second)]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["config"] == records[1]["config"]
    assert records[1]["data"] == "digits" and records[1]["model"] == "mlp"
    assert (first / "fused" / "model.safetensors").read_bytes() == (second / "fused" / "model.safetensors").read_bytes()


def test_a_users_own_configs_work_from_another_folder(transfuse: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(
        "_target_: transfuse.models.build_mlp\nwidths: [4]\nactivation: relu\ndropout: 0.0\n"
    )
    assert transfuse("--config-dir", "mine", "model=tiny", *QUICK) == (0, "")
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/*")
    assert json.loads((folder / "record.json").read_text())["config"]["model"]["widths"] == [4]


def test_the_report_command_tells_its_own_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for argument, message in (
        ("swep=last", "`swep` is no key of the config. Did you mean sweep?"),
        ("level=abc", "`level` should be a number."),
        ("level=1.5", "`level` should be in (0, 1)."),
        ("sweep=last", "No sweep in"),
    ):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["transfuse-report", argument])
        with pytest.raises(SystemExit) as end:
            report()
        assert end.value.code == 1
        assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_primary_config_finds_ours(transfuse: Command, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text(
        "defaults:\n  - config\n  - override strategy: output_fusion/average\n  - _self_\n\n"
        "hydra:\n  searchpath: [pkg://transfuse.conf]\n\nseed: 7\n"
    )
    given = ("--config-path", str(tmp_path / "own"), "--config-name", "mine")
    assert transfuse(*given, *QUICK) == (0, "")
    (record,) = (tmp_path / "outputs" / "runs").glob("*/*/record.json")
    assert json.loads(record.read_text())["seed"] == 7


def test_a_mistake_in_the_users_own_folder_costs_none_of_his_files(transfuse: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert transfuse("hydra.run.dir=.", "data.test_fraction=7", *QUICK)[0] == 1
    assert transfuse("-m", "hydra.sweep.dir=.", "strategy=output_fusion/averge,output_fusion/averag", *QUICK)[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_jobs_in_folders_of_other_names_are_found(transfuse: Command, tmp_path: Path) -> None:
    sweep = ("-m", "hydra.sweep.subdir=job_${hydra.job.num}", "strategy=output_fusion/average,baseline/best_single")
    assert transfuse(*sweep, *QUICK)[0] == 0
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    assert {path.name for path in folder.glob("job_*")} == {"job_0", "job_1"}
    assert (folder / "report" / "leaderboard.csv").read_text().count("\n") == 3


def test_a_sweep_over_nothing_says_so(transfuse: Command, tmp_path: Path) -> None:
    code, errors = transfuse("-m", "strategy=glob(output_fushion/*)", *QUICK)
    assert code == 1 and "matches no option" in errors
    assert list(tmp_path.iterdir()) == []


def test_too_few_validation_examples_are_told_before_training(transfuse: Command, tmp_path: Path) -> None:
    code, errors = transfuse("evaluation.cross_fit=500", *QUICK)
    assert code == 1 and "`evaluation.cross_fit` should be at most the number of validation examples" in errors
    assert list(tmp_path.iterdir()) == []


def test_torch_is_the_pinned_build() -> None:
    pinned = (Path(__file__).parents[1] / "constraints.txt").read_text()
    assert f"torch=={torch.__version__.partition('+')[0]}" in pinned
