"""Commands as a user types them, each in a process and a session of its own.

They are forked from a server that has done their imports, which are most of a short command's time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

START = 120.0  # seconds that a machine under load may take
END = 30.0

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["transfuse.sweep.job", "transfuse.sweep.finish", "transfuse.training.module"])


@dataclass(frozen=True)
class Command:
    """A command under way.

    Attributes:
        process: the leader of its session.
        output: file with what it prints.
    """

    process: BaseProcess
    output: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def reach(self, file: Path) -> str:
        """Waits until it has written `file`, whole; returns the content."""
        wait_until(lambda: file.exists() or not self.process.is_alive(), START)
        assert file.exists(), self.output.read_text()
        return file.read_text()

    def end(self, timeout: float = END) -> int:
        """Waits for its end, and that of all processes that it started; returns its exit code."""
        self.process.join(timeout)
        wait_until(lambda: not list(session(self.pid)), timeout)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def kill(self) -> None:
        """Ends what is left of it."""
        for process in session(self.pid):
            process.kill()
        self.process.join()


def start(*lines: str, cwd: Path) -> Command:
    """Starts a command, or several one after the other in one process; ends with the first code that is not 0."""
    output = cwd / f"output-{len(list(cwd.glob('output-*')))}.txt"
    process = _forks.Process(target=_run, args=(lines, cwd, output))
    process.start()
    return Command(process, output)


def session(leader: int) -> Iterator[psutil.Process]:
    """The running processes that a command has started, itself included, whoever their parent is now."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


def wait_until(condition: Callable[[], object], timeout: float) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.02)


def _run(lines: tuple[str, ...], cwd: Path, output: Path) -> None:
    import torch

    from transfuse.cli import main

    os.setsid()
    os.chdir(cwd)
    tempfile.tempdir = str(cwd)
    sys.path.insert(0, str(cwd))
    os.environ.pop("HYDRA_FULL_ERROR", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    torch.set_num_threads(1)
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for line in lines:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        sys.argv = ["transfuse", *line.split()]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
