from __future__ import annotations

import pytest

from transfuse.report import compare
from transfuse.report.contests import contests
from transfuse.report.labels import differing, joined
from transfuse.report.sweeps import read_sweep

SEEDS = {"_target_": "transfuse.base_models.Seeds", "count": 5}
FINETUNED = {"_target_": "transfuse.base_models.Finetuned", "count": 3}


def test_differing_fields() -> None:
    nodes = [{"accept": "better", "size": 3}, {"accept": "equal", "size": 3}]
    assert differing(nodes) == [{"accept": "better"}, {"accept": "equal"}]
    assert differing(nodes[:1]) == [{}]


def test_another_class_is_named_and_its_fields_stay_its_own() -> None:
    rule = {"_target_": "transfuse.strategy.weights.NllOptimal", "steps": 10}
    nodes = [{"weights": rule}, {"weights": rule | {"steps": 20}}, {"weights": None}, {"weights": [0.5, 0.5]}]
    assert differing(nodes) == [
        {"weights": "nll_optimal", "weights.steps": "10"},
        {"weights": "nll_optimal", "weights.steps": "20"},
        {"weights": "null"},
        {"weights": "[0.5,0.5]"},
    ]


def test_classes_are_named_like_their_configs() -> None:
    targets = {
        "transfuse.models.sharing.HardSharing": "hard",
        "transfuse.models.sharing.MMoE": "mmoe",
        "transfuse.models.sharing.DSelectK": "dselect_k",
        "transfuse.alignment.Unaligned": "unaligned",  # several in one file
        "yours.not_installed.ThirdRule": "third_rule",
    }
    nodes = [{"part": {"_target_": target}} for target in targets]
    assert [each["part"] for each in differing(nodes)] == list(targets.values())


def test_seeds_and_ignored_keys_never_count() -> None:
    nodes = [{"seed": 0, "inner": {"seed": 0}, "paths": "a"}, {"seed": 1, "inner": {"seed": 1}, "paths": "b"}]
    assert differing(nodes, frozenset({"paths"})) == [{}, {}]
    assert differing(nodes) == [{"paths": "a"}, {"paths": "b"}]


def test_joined() -> None:
    assert joined("a/b", {}) == "a/b"
    assert joined("a/b", {"x": "1", "y.z": "2"}) == "a/b x=1 y.z=2"


def test_settings_of_one_strategy_make_its_arms(sweep) -> None:
    for accept in ("better", "equal"):
        for seed in (0, 1):
            sweep.run("weight_fusion/greedy_soup", seed=seed, fields={"accept": accept, "order": "score"})
            sweep.run("baseline/best_single", seed=seed) if accept == "better" else None
    labels = {row.strategy: row.seeds for row in compare(sweep.folder).rows}
    assert labels == {
        "weight_fusion/greedy_soup accept=better": (0, 1),
        "weight_fusion/greedy_soup accept=equal": (0, 1),
        "baseline/best_single": (0, 1),
    }


def test_several_recipes_have_a_reference_each(sweep) -> None:
    for recipe, skill in ((SEEDS, 1.0), (FINETUNED, 0.5)):
        for seed in (0, 1, 2):
            sweep.run("baseline/best_single", seed=seed, skill=skill, config={"base_models": recipe})
            sweep.run("output_fusion/average", seed=seed, skill=skill + 0.3, config={"base_models": recipe})
    table = compare(sweep.folder).tables[0]
    rows = {row.strategy: row for row in table.rows}
    assert table.reference == "baseline/best_single"
    assert len(rows) == 4
    for name in ("seeds", "finetuned"):
        mine, reference = (
            rows[f"{strategy} base_models={name}"] for strategy in ("output_fusion/average", "baseline/best_single")
        )
        assert mine.difference.estimate == pytest.approx(mine.mean - reference.mean)
        assert (mine.pairs, reference.verdict) == (3, "reference")


def test_one_reference_serves_all_settings(sweep) -> None:
    for seed in (0, 1):
        sweep.run("baseline/best_single", seed=seed, config={"base_models": SEEDS})
        for count in (3, 5):
            sweep.run("output_fusion/average", seed=seed, config={"base_models": SEEDS | {"count": count}})
    rows = {row.strategy: row for row in compare(sweep.folder).rows}
    assert rows["output_fusion/average base_models.count=3"].pairs == 2
    assert rows["output_fusion/average base_models.count=5"].pairs == 2


def test_data_and_model_settings_are_tables_of_their_own(sweep) -> None:
    for size in (50, 200):
        for width in (32, 64):
            sweep.run("output_fusion/average", config={"data": {"target_size": size}, "model": {"width": width}})
    tables = compare(sweep.folder).tables
    assert [(table.data, table.model) for table in tables] == [
        ("digits target_size=50", "mlp width=32"),
        ("digits target_size=50", "mlp width=64"),
        ("digits target_size=200", "mlp width=32"),
        ("digits target_size=200", "mlp width=64"),
    ]


def test_where_a_run_writes_makes_no_arm(sweep) -> None:
    for seed in (0, 1):
        config = {
            "paths": {"outputs": f"out{seed}"},
            "tracking": {"experiment": str(seed)},
            "trainer": {"devices": seed},
        }
        sweep.run("output_fusion/average", seed=seed, config=config)
    assert [row.strategy for row in compare(sweep.folder).rows] == ["output_fusion/average"]


def test_a_repeated_run_counts_once(sweep) -> None:
    sweep.run("output_fusion/average", metrics={"test/nll": 0.9})
    sweep.run("output_fusion/average", metrics={"test/nll": 0.5})
    table = compare(sweep.folder).tables[0]
    assert [(row.seeds, row.mean) for row in table.rows] == [((0,), 0.5)]
    assert "output_fusion/average seed 0 was run again: job 1 counts." in table.notes


def test_failed_runs_take_no_part(sweep) -> None:
    sweep.run("output_fusion/average", status="failed", error="E: x", problem={}, metrics={})
    assert contests(read_sweep(sweep.folder).records) == ()
