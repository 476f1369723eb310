from __future__ import annotations

import base64
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.report.page import Page
from transfuse.report import comparison, read_sweep
from transfuse.report.html import write_html
from transfuse.report.multi_task import complete
from transfuse.report.tables import difference_text, places
from transfuse.tracking.record import RunRecord

NASTY = "<script>alert('x')</script> & \"quotes\""


def written(folder: Path) -> tuple[Page, list[Path]]:
    found = read_sweep(folder)
    completion = complete(found.records)
    page, *figures = write_html(comparison(found, completion, 0.95), completion.records, folder / "report")
    return Page(page), figures


@pytest.fixture
def built(sweep):
    """Three seeds, members, a strategy far from all others, a failed job."""
    for seed in (0, 1, 2):
        settings = {
            "seed": seed, "versions": {"torch": "9.8.7"}, "hardware": {"cores": 2}, "started": "2026-01-02T10:00:00",
            "shared_test": False,
        }  # fmt: skip
        sweep.run("baseline/best_single", **settings)
        sweep.run("baseline/mean_single", members=3, **settings)
        sweep.run("output_fusion/average", skill=2.5, **settings)
        sweep.run("output_fusion/median", skill=1.2, **settings)
        sweep.run("weight_fusion/uniform_soup", skill=-9.0, **settings)
    sweep.record(RunRecord(status="failed", error="StoreError: the store is full.", strategy="a/b", seed=1))
    return sweep


def test_it_holds_what_the_comparison_holds(built) -> None:
    page, _ = written(built.folder)
    found = read_sweep(built.folder)
    (table,) = comparison(found, complete(found.records), 0.95).tables
    digits, _ = places(table)
    for place, row in enumerate(table.rows, 1):
        assert f"{place} {row.strategy}" in page.text
        assert difference_text(row, digits) in page.text
    words = {row.verdict for row in table.rows}
    assert {"better", "worse", "reference"} <= words and words <= set(re.findall(r"[a-z]+", page.text))
    for note in table.notes:
        assert note in page.text
    for heading in (
        "Leaderboard", "Seed by seed", "Score against cost", "Calibration", "Diversity of the members", "Classes",
        "All scores", "Budgets", "Failed jobs", "Environment", "How to repeat it",
    ):  # fmt: skip
        assert heading in page.text
    for part in (
        "9.8.7",
        "2026-01-02 10:00 UTC",
        "validation looks",
        f"transfuse-report sweep={built.folder}",
        "auroc",
    ):
        assert part in page.text
    assert "StoreError: the store is full." in page.text and "16 jobs, 1 of them failed" in page.text
    assert "Better than baseline/best_single: output_fusion/average" in page.text
    assert "Nadeau and Bengio, 2003" in page.text


def test_nothing_is_loaded_from_anywhere(built) -> None:
    page, _ = written(built.folder)
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert [item["href"] for item in page.of("link")] == ["data:,"]
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)


def test_figures_are_files_and_inline(built) -> None:
    stale = built.folder / "report" / "figures" / "old.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    page, figures = written(built.folder)
    names = ["scores", "differences", "latency", "seconds", "reliability", "diversity"]
    assert [figure.stem for figure in figures] == names
    assert sorted(figure.name for figure in stale.parent.iterdir()) == sorted(f"{name}.png" for name in names)
    images = page.of("img")
    assert len(images) == len(figures)
    for image, figure in zip(images, figures, strict=True):
        source = image["src"] or ""
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == figure.read_bytes()
        assert len(image["alt"] or "") > 40
        assert 200 < int(image["width"] or 0) <= 461 and int(image["height"] or 0) > 100


def test_it_is_accessible(built) -> None:
    page, _ = written(built.folder)
    assert page.of("html") == [{"lang": "en"}]
    assert {attributes.get("scope") for attributes in page.of("th")} == {"col", "row"}
    assert len(page.of("caption")) == len(page.of("table")) > 6
    assert len(page.of("main")) == len(page.of("h1")) == len(page.of("title")) == 1
    assert len(page.of("figcaption")) == len(page.of("figure")) == len(page.of("img"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    anchors = {item["id"] for _, item in page.elements if "id" in item}
    assert {(item["href"] or "")[1:] for item in page.of("a")} <= anchors


def test_the_same_sweep_gives_the_same_bytes(built) -> None:
    page, figures = written(built.folder)
    before = [figure.read_bytes() for figure in figures]
    again, figures = written(built.folder)
    assert again.source == page.source and [figure.read_bytes() for figure in figures] == before


def test_everything_is_escaped(sweep) -> None:
    for seed in (0, 1):
        sweep.run("baseline/best_single", seed=seed, data=NASTY, model=NASTY, versions={NASTY: NASTY})
        sweep.run("output_fusion/average", seed=seed, data=NASTY, model=NASTY, fields={"weights": NASTY})
        sweep.run(
            "output_fusion/average", seed=seed, data=NASTY, model=NASTY, fields={"weights": "{{ 1 + 1 }} $\\nope{$"}
        )
    sweep.record(RunRecord(status="failed", error=NASTY, strategy=NASTY, seed=0))
    page, _ = written(sweep.folder)
    assert page.of("script") == [] and "alert" in page.text
    assert NASTY in page.text and "{{ 1 + 1 }}" in page.text
    assert {name for _, attributes in page.elements for name in attributes} <= {
        "lang", "charset", "name", "content", "rel", "href", "id", "class", "src", "alt", "width", "height", "tabindex",
        "role", "aria-label", "scope", "data-label",
    }  # fmt: skip


def test_one_seed_says_what_it_cannot_show(sweep) -> None:
    sweep.run("baseline/best_single")
    sweep.run("output_fusion/average", skill=4.0)
    page, figures = written(sweep.folder)
    assert "One seed only" in page.text and "They cannot show how much another training" in page.text
    assert "No strategy is therefore called better or worse." in page.text
    assert "Better than baseline/best_single: none." in page.text
    assert "scores" in [figure.stem for figure in figures]


def test_several_seeds_say_nothing_of_one(built) -> None:
    assert "One seed only" not in written(built.folder)[0].text


def test_a_sweep_in_which_everything_failed(sweep) -> None:
    sweep.record(RunRecord(status="failed", error="DataError: no.", strategy="a/b"))
    sweep.job()
    page, figures = written(sweep.folder)
    assert figures == []
    assert "no job of this sweep has a result." in page.text and "2 jobs, 2 of them failed" in page.text
    assert "DataError: no." in page.text and "the job was killed?" in page.text


def test_without_reference_predictions_and_costs_the_rest_stands(sweep) -> None:
    for seed in (0, 1):
        job = sweep.run("output_fusion/average", seed=seed, cost={})
        (job / "predictions.safetensors").unlink()
    page, figures = written(sweep.folder)
    assert [figure.stem for figure in figures] == ["scores"]
    assert "Without the reference in the sweep there is no verdict" in page.text
    assert "Calibration" not in page.text and "Score against cost" not in page.text


def test_multi_task_problems_show_every_task(sweep) -> None:
    for seed in (0, 1):
        sweep.multi_task("baseline/single_task", seed=seed, accuracy=0.8, rmse=2.0)
        sweep.multi_task("multi_task/joint_sum", seed=seed, accuracy=0.84 + 0.01 * seed, rmse=1.8)
    page, figures = written(sweep.folder)
    assert "Highest mean delta_m: multi_task/joint_sum" in page.text
    assert "All test scores of a;" in page.text and "All test scores of b;" in page.text
    assert "differences" in [figure.stem for figure in figures]


def test_two_tables_have_figures_of_their_own(sweep) -> None:
    for model in ("mlp", "cnn"):
        for seed in (0, 1):
            sweep.run("baseline/best_single", seed=seed, model=model)
            sweep.run("output_fusion/average", seed=seed, model=model)
    page, figures = written(sweep.folder)
    assert {figure.stem.partition("-")[0] for figure in figures} == {"1", "2"}
    assert len({figure.stem for figure in figures}) == len(page.of("img"))
    assert {"#table-1", "#table-2"} <= {item["href"] for item in page.of("a")}


def test_costs_of_several_magnitudes_are_on_a_logarithmic_axis(sweep) -> None:
    for latency, strategy in ((0.1, "baseline/best_single"), (3.0, "output_fusion/average"), (90.0, "z/z")):
        sweep.run(strategy, cost={"latency_ms": latency})
    page, figures = written(sweep.folder)
    assert [figure.stem for figure in figures if figure.stem in ("latency", "seconds")] == ["latency"]
    (alt,) = [image["alt"] or "" for image in page.of("img") if "latency" in (image["alt"] or "")]
    assert "a point for each of 3 strategies" in alt and "On the Pareto front: " in alt
