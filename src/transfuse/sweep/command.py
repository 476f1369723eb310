"""Runs a Hydra application as a command: readable errors, a finished sweep, the right exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from transfuse.suggest import explain
from transfuse.sweep.arguments import completed
from transfuse.sweep.interruption import Interrupted, stoppable
from transfuse.types import TransfuseError


def command(application: Callable[[], Any]) -> None:
    """Calls `application` and exits: 0 when all is well, 1 when a run or any job of a sweep failed.

    Mistakes of the user are told in a sentence, without a traceback; `HYDRA_FULL_ERROR=1` shows it. A sweep is finished
    even when it is interrupted; the code is then 130 (Ctrl-C) or 143 (SIGTERM).
    """
    traceback = "HYDRA_FULL_ERROR" in os.environ
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
        print(f"transfuse: {_message(error)}", file=sys.stderr)
        code = 1
    except Interrupted as stop:
        print(f"transfuse: {stop}", file=sys.stderr)
        code = stop.code
    sys.exit(code)


def _message(error: Exception) -> str:
    if isinstance(error, TransfuseError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        if error.filename is None:
            return str(error)
        return f"{error.filename} cannot be written ({error.strerror}). Is `paths.outputs` a folder that you may write?"
    return explain(error)


def _finish() -> int:
    """Finishes the sweep that began in this process, if any; 1 when a job of it failed."""
    from transfuse.sweep.callback import VARIABLE

    folder = os.environ.pop(VARIABLE, None)
    if folder is None:
        return 0
    from transfuse.sweep.finish import finish

    return finish(folder)
