from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.report.page import Page
from transfuse.report import comparison, read_sweep, write_report
from transfuse.report.html import write_html
from transfuse.report.multi_task import complete
from transfuse.report.problems import over_problems

STRATEGIES = {"baseline/best_single": 1.0, "output_fusion/average": 1.6, "output_fusion/median": 0.6}


def compared(folder: Path):
    found = read_sweep(folder)
    completion = complete(found.records)
    return comparison(found, completion, 0.95), completion.records


def fill(sweep, problems: int) -> None:
    for number in range(problems):
        for strategy, skill in STRATEGIES.items():
            # the last problem turns two strategies around
            turned = number == problems - 1 and strategy != "output_fusion/median"
            sweep.run(strategy, seed=number, skill=2.6 - skill if turned else skill, data=f"data{number}")


def test_strategies_are_ranked_over_problems(sweep) -> None:
    fill(sweep, 4)
    found, records = compared(sweep.folder)
    (ranking,) = over_problems(found.tables, 0.95)
    assert len(ranking.problems) == 4
    means_PK = [
        [row.mean for label in ranking.strategies for row in t.rows if row.strategy == label] for t in found.tables
    ]
    np.testing.assert_allclose(ranking.ranking.mean_ranks_K, stats.rankdata(means_PK, axis=1).mean(axis=0))
    best = ranking.strategies[ranking.order[0]]
    assert best == "output_fusion/average"
    page, *figures = write_html(found, records, sweep.folder / "report")
    assert "ranks-1.png" in {file.name for file in figures}
    text = Page(page).text
    for sentence in ranking.sentences:
        assert sentence in text
    _, markdown = write_report(found, sweep.folder / "report")
    assert f"| `{best}` | 1.25 |" in markdown.read_text()


@pytest.mark.parametrize("problems", [1, 2])
def test_few_problems_are_not_ranked(sweep, problems: int) -> None:
    fill(sweep, problems)
    found, records = compared(sweep.folder)
    assert list(over_problems(found.tables, 0.95)) == []
    page, *_ = write_html(found, records, sweep.folder / "report")
    assert "Mean ranks" not in Page(page).text


def test_strategies_that_one_problem_lacks_are_left_out(sweep) -> None:
    fill(sweep, 3)
    sweep.run("output_fusion/extra", seed=0, data="data0")
    found, _ = compared(sweep.folder)
    (ranking,) = over_problems(found.tables, 0.95)
    assert set(ranking.strategies) == set(STRATEGIES)
