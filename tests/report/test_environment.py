from __future__ import annotations

from pathlib import Path

from transfuse.report.environment import commands, environment, without_password
from transfuse.tracking.record import RunRecord

COMPOSED = """
hydra:
  runtime:
    config_sources:
      - {path: hydra.conf, schema: pkg, provider: hydra}
      - {path: my conf, schema: file, provider: command-line}
  overrides:
    hydra: [hydra.mode=MULTIRUN, hydra/launcher=joblib]
    task: ["strategy=glob(weight_fusion/*)", "seed=0,1", "tracking.uri=postgresql://me:secret@host/db"]
"""


def test_values_that_differ_between_jobs_are_all_given() -> None:
    records = [
        RunRecord(
            hardware={"cores": 2, "gpus": []}, versions={"torch": version}, started=f"2026-01-02T10:0{minute}:09+00:00",
            seconds=1.5,
        )
        for version, minute in (("2.6", 5), ("2.13", 1), ("2.6", 7))
    ]  # fmt: skip
    found = dict(environment(records))
    assert found["jobs started"] == "2026-01-02 10:01 UTC to 2026-01-02 10:07 UTC"
    assert found["time of all jobs"] == "4.50 s in 3 jobs"
    assert (found["hardware: cores"], found["hardware: gpus"]) == ("2", "none")
    assert found["version: torch"] == "2.6; 2.13"


def test_nothing_known_is_nothing_told() -> None:
    assert environment([RunRecord()]) == []


def test_commands_repeat_sweep_job_and_report(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(COMPOSED)
    for job in ("10", "2"):
        (tmp_path / job / ".hydra").mkdir(parents=True)
    again, one, report = (command for _, command in commands(tmp_path))
    assert again == (
        "transfuse -m '--config-dir=my conf' 'strategy=glob(weight_fusion/*)' seed=0,1 "
        "'tracking.uri=postgresql://***@host/db' hydra/launcher=joblib"
    )
    assert one == f"transfuse --config-path {tmp_path}/2/.hydra --config-name config"
    assert report == f"transfuse-report sweep={tmp_path}"


def test_without_hydras_files_the_report_can_still_be_repeated(tmp_path: Path) -> None:
    assert [what for what, _ in commands(tmp_path)] == ["Make this report again"]
    (tmp_path / "multirun.yaml").write_text("hydra: [")
    assert [what for what, _ in commands(tmp_path)] == ["Make this report again"]


def test_passwords_are_left_out() -> None:
    assert without_password("a=http://me:pw@host:5000/x b@c") == "a=http://***@host:5000/x b@c"
