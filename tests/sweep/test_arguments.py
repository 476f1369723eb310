from __future__ import annotations

import pytest

from transfuse.sweep.arguments import completed
from transfuse.types import ConfigError


def test_a_glob_over_nested_options_is_written_out() -> None:
    (argument,) = completed(["strategy=glob(output_fusion/*)"])
    assert argument.startswith("strategy=") and "output_fusion/average" in argument.removeprefix("strategy=").split(",")
    assert all(choice.startswith("output_fusion/") for choice in argument.removeprefix("strategy=").split(","))


def test_several_patterns_and_exclusions_work() -> None:
    (argument,) = completed(["strategy=glob([baseline/*_single,multi_task/joint*],exclude=baseline/mean*)"])
    assert argument == "strategy=baseline/best_single,multi_task/joint_sum"


def test_everything_else_is_hydras_own() -> None:
    for argument in ("data=glob(digits*)", "strategy=output_fusion/average", "--help", "strategy=glob(a/["):
        assert completed([argument]) == [argument]


def test_a_glob_without_a_match_is_told() -> None:
    with pytest.raises(ConfigError, match="matches no option"):
        completed(["strategy=glob(output_fushion/*)"])


def test_a_repeated_run_is_written_to_the_runs() -> None:
    repeated = completed(["--config-path", "x/.hydra", "--config-name", "config"])
    assert repeated[-1].startswith("hydra.run.dir=${paths.outputs}/runs/")
    own = ["--config-path", "x", "hydra.run.dir=here"]
    assert completed(own) == own
