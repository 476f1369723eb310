"""The commands `transfuse` and `transfuse-report`. Help and config printing import neither torch nor MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra

from transfuse.suggest import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """`transfuse`: one run, or with `-m` a sweep that ends in a leaderboard."""
    from transfuse.sweep.command import command

    command(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_job))


def report() -> None:
    """`transfuse-report`: the leaderboard of a sweep, written and printed again."""
    from transfuse.sweep.command import command

    command(hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")(_report), primary="report")


def _job(config: DictConfig) -> float:
    from transfuse.sweep.command import told
    from transfuse.sweep.job import job

    with told():
        return job(config)


def _report(config: DictConfig) -> None:
    from transfuse.sweep.command import told
    from transfuse.sweep.finish import report_again

    with told():
        report_again(config)
