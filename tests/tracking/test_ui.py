from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from transfuse.tracking.ui import main
from transfuse.tracking.view import TAG


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_ui_serves_the_view_and_leaves_no_process_behind(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "transfuse.tracking.ui", str(tmp_path), str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        link = next(line.split()[1] for line in process.stdout if line.startswith("Open "))
        with urllib.request.urlopen(link, timeout=30) as page:
            assert b"<title>MLflow</title>" in page.read()
        named = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=transfuse"
        with urllib.request.urlopen(named, timeout=30) as answer:
            experiment = json.load(answer)["experiment"]
        assert TAG in {tag["key"] for tag in experiment["tags"]}
        assert f"/experiments/{experiment['experiment_id']}/runs?" in link
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 1
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main([str(tmp_path), str(port)]) == 1
    assert f"Port {port} is in use. Did you mean another one, such as {port + 1}?" in capfd.readouterr().err
