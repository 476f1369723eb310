"""`trainer=ddp_cpu`, two processes a training, as a command: the same results, and no process that outlives it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.sweep.commands import END, START, Command, session, start, wait_until

# Batch sizes leave one example of an epoch over, which any number of processes drops: two cannot share an odd batch.
SWEEPS = {
    "digits": "strategy=output_fusion/average base_models.count=2 training.batch_size=26",
    "digits_tasks": "strategy=multi_task/joint_sum training.batch_size=26",
    "digits_noise": "strategy=parameter_transfer/full_finetune training.batch_size=14",
}
NETWORK = '''
import os, time
from pathlib import Path
import torch
from torch import nn

class Network(nn.Module):
    """In the last rank's first training step: works, fails, or waits for the file `go`."""

    def __init__(self, behaviour):
        super().__init__()
        self.behaviour = behaviour
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, inputs):
        several = torch.distributed.is_initialized()
        if self.training and (not several or torch.distributed.get_rank() == 1):
            if self.behaviour == "fails":
                raise ValueError("this is no digit")
            if self.behaviour == "waits":
                Path("process.part").write_text(str(os.getpid()))
                Path("process.part").rename("process")
                while not Path("go").exists():
                    time.sleep(0.01)
        return self.layers(inputs)
'''
CUSTOM = "model=custom model.module=network.Network strategy=baseline/best_single base_models.count=1 training.epochs=1"

Start = Callable[..., Command]


@pytest.fixture(scope="module")
def begin() -> Iterator[Start]:
    """Starts commands; none of their processes survives the tests."""
    commands: list[Command] = []

    def begin(*lines: str, cwd: Path) -> Command:
        (cwd / "network.py").write_text(NETWORK)
        commands.append(start(*lines, cwd=cwd))
        return commands[-1]

    yield begin
    for command in commands:
        command.kill()


def records(sweep: Path) -> list[dict[str, Any]]:
    folders = sorted(
        (folder for folder in sweep.iterdir() if folder.name.isdigit()), key=lambda folder: int(folder.name)
    )
    return [json.loads((folder / "record.json").read_text()) for folder in folders]


@pytest.fixture(scope="module")
def outputs(begin: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sweeps over one and two processes, all jobs in one process."""
    folder = tmp_path_factory.mktemp("devices")
    lines = [f"-m trainer=cpu,ddp_cpu data={data} {SWEEPS[data]} training.epochs=2" for data in SWEEPS]
    command = begin(*lines, cwd=folder)
    code = command.end(START)
    assert code == 0, command.output.read_text()
    return folder / "outputs"


def sweep_of(outputs: Path, data: str) -> Path:
    (found,) = (job.parent for job in outputs.glob("sweeps/*/*/0") if records(job.parent)[0]["data"] == data)
    return found


@pytest.mark.parametrize("data", SWEEPS)
def test_two_processes_give_the_results_of_one(outputs: Path, data: str) -> None:
    sweep = sweep_of(outputs, data)
    one, two = records(sweep)
    assert (one["config"]["trainer"]["devices"], two["config"]["trainer"]["devices"]) == (1, 2)
    assert one["status"] == two["status"] == "finished"
    assert one["budget"] == two["budget"]
    assert one["metrics"].keys() <= two["metrics"].keys()
    expected, found = (load_file(sweep / job / "predictions.safetensors") for job in ("0", "1"))
    assert len(set(found["ids"].tolist())) == len(found["ids"])
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=1e-4)


def test_each_run_is_tracked_once_whatever_the_number_of_processes(outputs: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("transfuse")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in found} == {"FINISHED"}
    kinds = [(run.data.tags["transfuse.kind"], run) for run in found]
    assert Counter(kind for kind, _ in kinds) == {"sweep": 3, "job": 6, "base_model": 6}
    devices = {"job": "trainer.devices", "base_model": "world_size"}
    by_devices = Counter((kind, run.data.params[devices[kind]]) for kind, run in kinds if kind in devices)
    assert by_devices == {("job", "1"): 3, ("job", "2"): 3, ("base_model", "1"): 3, ("base_model", "2"): 3}
    assert len(list(outputs.glob("sweeps/*/*/*/record.json"))) == len(list(outputs.glob("store/*/record.json"))) == 6
    assert not (outputs / "runs").exists()


def test_a_rank_that_fails_or_is_killed_costs_its_job_alone(begin: Start, tmp_path: Path) -> None:
    command = begin(
        f"-m trainer=ddp_cpu {CUSTOM} +model.arguments.behaviour=fails,waits,works tracking=off", cwd=tmp_path
    )
    os.kill(int(command.reach(tmp_path / "process")), signal.SIGKILL)
    assert command.end() == 1
    (sweep,) = tmp_path.glob("outputs/sweeps/*/*")
    assert [(record["status"], record["error"]) for record in records(sweep)] == [
        ("failed", "TrainingError: base model seeds-0: ValueError in process 1: this is no digit"),
        ("failed", "TrainingError: base model seeds-0: process 1 was ended by SIGKILL. Was there too little memory?"),
        ("finished", None),
    ]
    text = command.output.read_text()
    assert "this is no digit" in text and "ended by SIGKILL" in text
    assert "Traceback" not in text
    with (sweep / "report" / "leaderboard.csv").open() as file:
        assert [row["strategy"] for row in csv.DictReader(file)] == ["baseline/best_single"]


def test_a_run_whose_rank_fails_ends_with_a_sentence(begin: Start, tmp_path: Path) -> None:
    command = begin(f"trainer=ddp_cpu {CUSTOM} +model.arguments.behaviour=fails tracking=off", cwd=tmp_path)
    assert command.end(START) == 1
    text = command.output.read_text()
    assert "transfuse: base model seeds-0: ValueError in process 1: this is no digit\n" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_takes_its_processes_along(
    begin: Start, tmp_path: Path, number: signal.Signals
) -> None:
    line = f"trainer=ddp_cpu {CUSTOM} +model.arguments.behaviour=waits tracking=off"
    command = begin(line, cwd=tmp_path)
    command.reach(tmp_path / "process")
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does
    else:
        os.kill(command.pid, number)
    code = command.end()
    (folder,) = tmp_path.glob("outputs/runs/*/*")
    if number == signal.SIGKILL:
        assert code == -number
        assert not (folder / "record.json").exists()
    else:
        assert code == 128 + number
        assert command.output.read_text().splitlines()[1:] == [f"transfuse: stopped by {number.name}"]
        record = json.loads((folder / "record.json").read_text())
        assert (record["status"], record["error"]) == ("failed", f"Interrupted: stopped by {number.name}")
    assert [path.name for path in tmp_path.glob("outputs/store/*")] == ["locks"]
    (lock,) = tmp_path.glob("outputs/store/locks/*")
    FileLock(lock).acquire(timeout=0).lock.release()
    (tmp_path / "go").touch()
    again = begin(line, cwd=tmp_path)
    assert again.end(START) == 0, again.output.read_text()
    assert len(list(tmp_path.glob("outputs/store/*/record.json"))) == 1


def test_ctrl_c_in_a_sweep_keeps_what_is_finished(begin: Start, tmp_path: Path) -> None:
    command = begin(f"-m trainer=cpu {CUSTOM} +model.arguments.behaviour=works,waits,fails", cwd=tmp_path)
    command.reach(tmp_path / "process")
    os.killpg(command.pid, signal.SIGINT)
    assert command.end() == 128 + signal.SIGINT
    (sweep,) = tmp_path.glob("outputs/sweeps/*/*")
    assert [(record["status"], record["error"]) for record in records(sweep)] == [
        ("finished", None),
        ("failed", "Interrupted: stopped by SIGINT"),
    ]
    assert (sweep / "0" / "predictions.safetensors").exists()
    with (sweep / "report" / "leaderboard.csv").open() as file:
        assert [row["strategy"] for row in csv.DictReader(file)] == ["baseline/best_single"]
    text = command.output.read_text()
    assert text.endswith("transfuse: stopped by SIGINT\n")
    assert "Traceback" not in text
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("transfuse")
    assert experiment is not None
    found = Counter(
        (run.data.tags["transfuse.kind"], run.info.status) for run in client.search_runs([experiment.experiment_id])
    )
    assert found == {
        ("sweep", "FAILED"): 1,
        ("job", "FINISHED"): 1,
        ("job", "FAILED"): 1,
        ("base_model", "FINISHED"): 1,
    }


@pytest.mark.slow
def test_jobs_in_parallel_train_in_several_processes_each(tmp_path: Path) -> None:
    line = "-m hydra/launcher=joblib hydra.launcher.n_jobs=2 trainer=ddp_cpu data=digits base_models.count=2"
    strategies = "strategy=output_fusion/average,baseline/best_single seed=0,1 training.epochs=1 tracking=off"
    program = "import sys; from transfuse.cli import main; sys.argv[0] = 'transfuse'; main()"
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *line.split(), *strategies.split()],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        assert process.wait(2 * START) == 0, (tmp_path / "output.txt").read_text()
    wait_until(lambda: not list(session(process.pid)), END)
    (sweep,) = tmp_path.glob("outputs/sweeps/*/*")
    assert [record["status"] for record in records(sweep)] == ["finished"] * 4
    assert len(list(tmp_path.glob("outputs/store/*/record.json"))) == 4
