"""Runs a Hydra application as a command: readable errors, a finished sweep, the right exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from transfuse.suggest import explain
from transfuse.sweep.arguments import completed
from transfuse.sweep.interruption import Interrupted, stoppable
from transfuse.types import TransfuseError

_TRACEBACK = "TRANSFUSE_TRACEBACK"  # environment variable: whether the user asked for tracebacks


def command(application: Callable[[], Any], primary: str = "config") -> None:
    """Calls `application` and exits: 0 when all is well, 1 when a run or any job of a sweep failed.

    Mistakes of the user are told in a sentence, without a traceback; `HYDRA_FULL_ERROR=1` shows it. A sweep is finished
    even when it is interrupted; the code is then 130 (Ctrl-C) or 143 (SIGTERM).
    """
    traceback = _traceback_wanted()
    os.environ[_TRACEBACK] = str(int(traceback))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors to us instead of printing them
    code = 0
    try:
        with stoppable():
            try:
                sys.argv[1:] = completed(sys.argv[1:])
                application()
            finally:
                code = _finish()
    except (HydraException, OmegaConfBaseException, TransfuseError, OSError) as error:
        if traceback:
            raise
        print(f"transfuse: {_message(error, primary)}", file=sys.stderr)
        code = 1
    except ValueError as error:  # Hydra's way to refuse `model=null`
        if traceback or "Config group override" not in str(error):
            raise
        print(f"transfuse: {error}", file=sys.stderr)
        code = 1
    except Interrupted as stop:
        print(f"transfuse: {stop}", file=sys.stderr)
        code = stop.code
    sys.exit(code)


@contextmanager
def told() -> Iterator[None]:
    """Tells a mistake here, inside Hydra's job, and ends: Hydra would add lines of its own to it."""
    try:
        yield
    except TransfuseError as error:
        if os.environ.get(_TRACEBACK) == "1":
            raise
        print(f"transfuse: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _traceback_wanted() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def _message(error: Exception, primary: str) -> str:
    if isinstance(error, TransfuseError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        if error.filename is None:
            return str(error)
        return f"{error.filename} cannot be written ({error.strerror}). Is `paths.outputs` a folder that you may write?"
    return explain(error, primary)


def _finish() -> int:
    """Finishes the sweep that began in this process, if any; 1 when a job of it failed."""
    from transfuse.sweep.callback import VARIABLE

    folder = os.environ.pop(VARIABLE, None)
    if folder is None:
        return 0
    from transfuse.sweep.finish import finish

    return finish(folder)
