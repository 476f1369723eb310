"""The commands `transfuse` and `transfuse-report`. Help and config printing import neither torch nor MLflow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import hydra

from transfuse.suggest import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

_RUN_FOLDER = "hydra.run.dir=${paths.outputs}/runs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"


def main() -> None:
    """`transfuse`: one run, or with `-m` a sweep that ends in a leaderboard."""
    from transfuse.sweep.command import command

    given = " ".join(sys.argv)
    if ("--config-path" in given or "-cp " in given) and "hydra.run.dir=" not in given:
        sys.argv.append(_RUN_FOLDER)  # a run's own folder holds its config, but not where runs are written
    command(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_job))


def report() -> None:
    """`transfuse-report`: the leaderboard of a sweep, written and printed again."""
    from transfuse.sweep.command import command

    command(hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")(_report))


def _job(config: DictConfig) -> float:
    from transfuse.sweep.job import job

    return job(config)


def _report(config: DictConfig) -> None:
    from pathlib import Path

    from transfuse.report import report

    report(config.sweep, Path(config.outputs).expanduser().absolute(), level=config.level)
