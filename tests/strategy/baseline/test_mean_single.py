from __future__ import annotations

from pathlib import Path

import pytest

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Seeds
from transfuse.strategy.baseline import MeanSingle


def test_scores_are_the_members_means_and_there_is_no_network(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN)), Seeds(count=3), tmp_path)
    report = MeanSingle().apply(context)
    assert report.network is None and report.members == (0, 1, 2)
    for metric in ("nll", "accuracy"):
        members = [member.validation["sign"][metric] for member in context.base_models]
        assert report.validation["sign"][metric] == pytest.approx(sum(members) / 3)
