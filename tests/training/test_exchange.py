"""Which of several failures is told, and workers whose main process is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from transfuse.training.exchange import Exchange, open_exchange
from transfuse.types import NonFiniteError, TrainingError

RAISED = RuntimeError(
    "\n\n-- Process 0 terminated with the following error:\n"
    "Traceback (most recent call last):\n  File 'a.py', line 1, in a\n    a()\nValueError: first\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    "Traceback (most recent call last):\n  File 'b.py', line 2, in b\n    b()\n    ^^^\nKeyError: second\nand more\n"
)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([1, -signal.SIGKILL], "x: process 1 was ended by SIGKILL. Was there too little memory?"),
        ([1, -signal.SIGSEGV], "x: process 1 was ended by SIGSEGV."),
        ([1, -signal.SIGTERM], "x: ValueError in process 1: told"),
        ([-signal.SIGABRT, 1], "x: ValueError in process 1: told"),
        ([None, None], "x: ValueError in process 1: told"),
    ],
)
def test_a_signal_from_outside_counts_more_than_errors_and_these_more_than_their_consequences(
    tmp_path: Path, codes: Sequence[int | None], message: str
) -> None:
    exchange = Exchange(tmp_path)
    exchange.write_failure(1, ValueError("told"))
    exchange.write_failure(1, ValueError("later in the same rank"))
    exchange.write_failure(0, RuntimeError("connection lost"))
    error = exchange.failure("x", RAISED, codes)
    assert type(error) is TrainingError
    assert str(error) == message


def test_without_a_told_error_the_last_line_of_the_launch_counts(tmp_path: Path) -> None:
    error = Exchange(tmp_path).failure("x", RAISED, [1, -signal.SIGTERM])
    assert str(error) == "x: a process failed: KeyError: second\nand more"
    assert error.__notes__ == [str(RAISED)]
    plain = Exchange(tmp_path).failure("x", RuntimeError("no port is free"), [])
    assert str(plain) == "x: a process failed: no port is free"


def test_an_error_of_ours_arrives_as_itself(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path)
    exchange.write_failure(0, NonFiniteError("the loss is nan"))
    error = exchange.failure("x", RAISED, [1, 1])
    assert type(error) is NonFiniteError and str(error) == "the loss is nan"


def test_temporary_files_go_to_the_exchange_and_vanish_with_it(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with open_exchange(tmp_path) as exchange:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            assert Path(file.name).parent == exchange.folder
        assert exchange.folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() == before


@pytest.mark.parametrize("orphan", [False, True])
def test_a_worker_whose_main_process_is_gone_ends(tmp_path: Path, orphan: bool) -> None:
    exchange = Exchange(tmp_path)
    if orphan:
        exchange._main = os.getppid()
    worker = multiprocessing.get_context("fork").Process(target=exchange.enter_worker)
    worker.start()
    worker.join(30)
    assert worker.exitcode == int(orphan)
