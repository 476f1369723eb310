"""On what a sweep ran and when, and the commands that repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from transfuse.report.numbers import amount
from transfuse.tracking.record import RunRecord


def environment(records: Iterable[RunRecord]) -> list[tuple[str, str]]:
    """Name and value of date, duration, hardware and versions; values that differ between jobs are all given."""
    known = list(records)
    started = sorted(record.started for record in known if record.started)
    found = []
    if started:
        first, last = (_minute(text) for text in (started[0], started[-1]))
        found.append(("jobs started", first if first == last else f"{first} to {last}"))
    seconds = [record.seconds for record in known if record.seconds > 0]
    if seconds:
        found.append(("time of all jobs", f"{amount(sum(seconds))} s in {len(seconds)} jobs"))
    found += [(f"hardware: {name}", values) for name, values in _distinct([record.hardware for record in known])]
    return found + [(f"version: {name}", values) for name, values in _distinct([record.versions for record in known])]


def commands(sweep: Path) -> list[tuple[str, str]]:
    """What each command does, and the command: the sweep again, one of its jobs again, this report again."""
    found = []
    arguments = _arguments(sweep / "multirun.yaml")
    if arguments:
        found.append(("Run the sweep again", shlex.join(["transfuse", "-m", *arguments])))
    job = next((path for path in sorted(sweep.glob("*/.hydra"), key=_number)), None)
    if job is not None:
        again = shlex.join(["transfuse", "--config-path", str(job.absolute()), "--config-name", "config"])
        found.append((f"Run one job again (here job {job.parent.name})", again))
    found.append(("Make this report again", shlex.join(["transfuse-report", f"sweep={sweep.absolute()}"])))
    return found


def without_password(text: str) -> str:
    """Example: `uri=http://me:secret@host` to `uri=http://***@host`."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def _arguments(composed: Path) -> list[str]:
    """The arguments that the sweep was started with, Hydra's own too; none where they are unknown."""
    try:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        hydra = yaml.load(composed.read_text(), Loader=loader)["hydra"]
        sources = hydra["runtime"]["config_sources"]
        own = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
        given = [*own, *hydra["overrides"]["task"], *hydra["overrides"]["hydra"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []
    return [without_password(str(item)) for item in given if not str(item).startswith("hydra.mode=")]


def _distinct(parts: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    values: dict[str, list[str]] = {}
    for part in parts:
        for name, value in part.items():
            text = (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
            if text not in values.setdefault(name.replace("_", " "), []):
                values[name.replace("_", " ")].append(text)
    return [(name, "; ".join(texts)) for name, texts in values.items()]


def _minute(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def _number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdecimal() else 0, name)
