from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import pytest

from tests.base_models.pools import make_pool
from tests.toy import SIGN, make_development, make_setting, make_split
from transfuse.base_models import FGE, BaseModelRecipe, Seeds, Snapshots, Store
from transfuse.tracking.base import Tracker
from transfuse.tracking.journal import Journal
from transfuse.types import Problem

TAGS = {
    "transfuse.strategy": "output_fusion/average",
    "transfuse.seed": "0",
    "transfuse.data": "toy",
    "transfuse.model": "mlp",
}


@pytest.mark.parametrize(
    ("recipe", "names", "prefix"),
    [
        (Seeds(count=2), ["seeds-0", "seeds-1"], ""),
        (Snapshots(cycles=2), ["snapshots-0 to snapshots-1"], "member/snapshots-1/"),
        (FGE(cycles=3), ["seeds-0", "fge-0 to fge-2"], "member/fge-2/"),
    ],
    ids=["seeds", "snapshots", "fge"],
)
def test_each_training_has_one_entry(recipe: BaseModelRecipe, names: list[str], prefix: str, tmp_path: Path) -> None:
    development = make_development(SIGN)
    tracker = create_autospec(Tracker, instance=True)
    tracker.start.side_effect = ["job", "one", "two"]
    journal = Journal(tracker=tracker, folder=tmp_path, store=Store(tmp_path))
    journal.start({}, TAGS, Problem(development=development, test=make_split(8, 72, (SIGN,))), parent=None, test="t")
    pool = make_pool(recipe, make_setting(development), tmp_path)
    pool.on_trained = journal.base_model
    members = list(pool)

    opened = tracker.start.call_args_list[1:]
    assert [call.args for call in opened] == [("base_model", name) for name in names]
    keys = [key for call in opened for key in call.kwargs["tags"]["transfuse.key"].split(",")]
    assert sorted(keys) == sorted(member.description.key for member in pool.used())
    values = [call.args[1] for call in tracker.metrics.call_args_list]
    assert sum("cost/seconds" in value for value in values) == len(names)
    logged = {name: number for value in values for name, number in value.items()}
    assert logged[f"{prefix}validation/accuracy"] == members[-1].validation["sign"]["accuracy"]
    assert [call.args for call in tracker.finish.call_args_list] == [
        (run, "finished") for run in ("one", "two")[: len(names)]
    ]
