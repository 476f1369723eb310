"""`python -m transfuse.tracking.ui [outputs] [port]`: MLflow's pages, opened on the view of our experiment."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from transfuse.tracking.connection import connect, default_artifacts, default_uri
from transfuse.tracking.mlflow import MlflowTracker
from transfuse.tracking.view import publish, url

HOST = "127.0.0.1"
_START_SECONDS = 120
_STOP_SECONDS = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the store where there is none, refreshes the view, and serves until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m transfuse.tracking.ui", description="Show the tracked runs.")
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), help="the outputs folder")
    parser.add_argument("port", nargs="?", type=int, default=5000, help="the port on 127.0.0.1")
    options = parser.parse_args(arguments)

    outputs = options.outputs.resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(outputs)
    artifacts = default_artifacts(uri, outputs)
    if artifacts is not None and not _is_free(options.port):
        print(f"Port {options.port} is in use. Did you mean another one, such as {options.port + 1}?", file=sys.stderr)
        return 1
    connection = connect(uri, artifacts, MlflowTracker().experiment, outputs)
    publish(connection.client, connection.experiment_id)
    if artifacts is None:
        print(f"Runs are tracked by a server. Open {url(uri.rstrip('/') + '/', connection.experiment_id)}")
        return 0
    return serve(uri, options.port, url(f"http://{HOST}:{options.port}/", connection.experiment_id))


def serve(uri: str, port: int, link: str) -> int:
    """Runs `mlflow ui` as a child, prints the link when it answers, and ends it with us; returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Two processes instead of ten: no job queue for MLflow's language model features, one worker.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    # A session of its own, so that the server's workers can be ended together with it.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        if _answers(server, port):
            print(f"\nOpen {link}\nEnd with Ctrl-C.\n", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the server answers; False when it ended or did not answer in time."""
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and its workers, by force after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
