from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.properties import fresh
from transfuse.metrics import higher_is_better, metric_names, score
from transfuse.strategy.output_fusion import GreedySelection, fuse
from transfuse.strategy.output_fusion.bag_loss import bag_loss, likelihoods
from transfuse.strategy.output_fusion.greedy_path import TieBreak, greedy_path
from transfuse.strategy.output_fusion.greedy_selection import lowest_nll
from transfuse.strategy.predictions import Predictions
from transfuse.types import EmptyTaskError, HyperparameterError, IncompatibleStrategyError, Task, TaskKind

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "greedy_selection.npz"
METRIC = {"acc": "accuracy", "acc_tb2": "accuracy", "brier": "brier", "reg": "rmse"}


def golden_predictions(run: str) -> Predictions:
    golden = np.load(GOLDEN)
    if run == "reg":
        values = torch.tensor(golden["in_reg_preds"])[:, :, None]
        return Predictions(logits_MNC=values, kind="regression", labels=torch.tensor(golden["in_reg_y"])[:, None])
    logits = torch.tensor(golden["in_probs"]).log()
    return Predictions(logits_MNC=logits, kind="classification", labels=torch.tensor(golden["in_y"]))


def random_state() -> TieBreak:
    draws = np.random.RandomState(0)
    return lambda bag, tied: int(draws.choice(tied))


@pytest.mark.parametrize("run", ["nll", "nll100", "nll1", "acc", "acc_tb2", "brier", "reg"])
def test_golden_path(run: str) -> None:
    golden, predictions = np.load(GOLDEN), golden_predictions(run)
    break_tie = random_state()
    if run == "acc_tb2":
        p_ME = likelihoods(predictions)

        def break_tie(bag, tied):  # type: ignore[no-untyped-def]
            return lowest_nll(p_ME, bag, tied)

    size = int(golden[f"out_{run}_size"])
    path = greedy_path(*bag_loss(predictions, METRIC.get(run, "nll")), size=size, break_tie=break_tie)
    assert list(path.indices) == golden[f"out_{run}_indices"].tolist()
    np.testing.assert_allclose(path.trajectory, golden[f"out_{run}_trajectory"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(path.weights.numpy(), golden[f"out_{run}_weights"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("run", ["nll", "acc_tb2", "brier", "reg"])
def test_golden_weights_of_the_method(run: str) -> None:
    golden, predictions = np.load(GOLDEN), golden_predictions(run)
    fusion = fuse(
        predictions.logits_MNC,
        method="greedy_selection",
        labels=predictions.labels,
        kind=predictions.kind,
        metric=METRIC.get(run, "nll"),
    )
    assert fusion.weights is not None
    np.testing.assert_allclose(fusion.weights.numpy(), golden[f"out_{run}_weights"], rtol=0, atol=1e-12)
    assert fusion.diagnostics["fusion/kept_steps"] == len(golden[f"out_{run}_indices"])
    assert fusion.diagnostics["fusion/kept_loss"] == pytest.approx(float(golden[f"out_{run}_score"]), abs=1e-6)
    assert fusion.diagnostics["fusion/kept_members"] == (golden[f"out_{run}_weights"] > 0).sum()


METRICS = [(kind, name) for kind in ("classification", "multilabel", "regression") for name in metric_names(kind)]


@pytest.mark.parametrize(("kind", "metric"), METRICS)
def test_losses_are_the_metric_of_the_average(kind: TaskKind, metric: str) -> None:
    predictions = make_predictions(kind, members=4, outputs=3, examples=37)
    predictions.truth[5] = -1 if kind == "classification" else torch.nan
    values_MF, losses = bag_loss(predictions, metric)
    found = losses(values_MF, values_MF[:2].mean(0), 1 / 3).tolist()
    task = Task(name="y", kind=kind, outputs=3)
    for member in range(4):
        counts = np.array([1.0, 1.0, 0.0, 0.0]) + np.eye(4)[member]
        average = fuse(predictions.logits_MNC, method="weighted_average", kind=kind, weights=counts).logits_NC
        expected = score(task, average, predictions.truth, metric)
        expected = 1 - expected if higher_is_better(metric) else expected
        assert found[member] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("kind", "metric"), METRICS)
@pytest.mark.parametrize("replacement", [True, False])
def test_never_worse_than_the_best_member(kind: TaskKind, metric: str, replacement: bool) -> None:
    predictions = make_predictions(kind, members=5)
    combiner = GreedySelection(metric=metric, size=6, replacement=replacement).combine(predictions)
    sign = 1.0 if higher_is_better(metric) else -1.0
    fused = score(Task(name="y", kind=kind, outputs=4), combiner(predictions.logits_MNC), predictions.truth, metric)
    assert sign * fused >= float((sign * predictions.scores(metric)).max()) - 1e-9


def first(bag: object, tied: list[int]) -> int:
    return tied[0]


def test_the_last_kept_loss_is_the_lowest_and_the_first_such() -> None:
    values_MF, losses = bag_loss(make_predictions("classification", members=7), "nll")
    short = greedy_path(values_MF, losses, size=10, break_tie=first)
    long = greedy_path(values_MF, losses, size=40, break_tie=first)
    assert long.trajectory[-1] < min(long.trajectory[:-1])
    assert long.trajectory[-1] <= short.trajectory[-1]
    assert long.indices[: len(short.indices)] == short.indices


def test_a_copy_of_a_member_never_raises_the_loss() -> None:
    predictions = make_predictions("classification", members=5)
    values_MF, losses = bag_loss(predictions, "nll")
    plain = greedy_path(values_MF, losses, size=25, break_tie=first)
    copied = greedy_path(torch.cat([values_MF, values_MF[:2]]), losses, size=25, break_tie=first)
    assert copied.trajectory[-1] <= plain.trajectory[-1]


def test_without_replacement_nobody_enters_twice() -> None:
    values_MF, losses = bag_loss(make_predictions("classification", members=6), "nll")
    path = greedy_path(values_MF, losses, size=25, break_tie=first, replacement=False)
    again = greedy_path(values_MF, losses, size=25, break_tie=first)
    assert len(set(path.indices)) == len(path.indices) <= 6
    assert len(set(again.indices)) < len(again.indices)


def test_init_takes_the_best_members_first() -> None:
    predictions = make_predictions("classification", members=6)
    values_MF, losses = bag_loss(predictions, "nll")
    best_first = predictions.scores("nll").argsort().tolist()
    path = greedy_path(values_MF, losses, size=25, break_tie=first, init=4)
    assert list(path.indices[:4]) == best_first[:4]
    combiner = GreedySelection(init=4).combine(predictions)
    assert combiner.weights is not None
    torch.testing.assert_close(combiner.weights, path.weights)


def test_equal_losses_prefer_the_bag_then_the_lower_nll() -> None:
    # accuracy is 0 for all: members 1 and 2 tie, 2 has the better likelihood
    p_MNC = torch.tensor([[[0.30, 0.70]], [[0.10, 0.90]], [[0.40, 0.60]]], dtype=torch.float64).repeat(1, 8, 1)
    predictions = Predictions(logits_MNC=p_MNC.log(), kind="classification", labels=torch.zeros(8, dtype=torch.int64))
    found = {
        ties: GreedySelection(metric="accuracy", ties=ties).combine(predictions).weights for ties in ("nll", "first")
    }
    assert found["nll"] is not None and found["nll"].tolist() == [0.0, 0.0, 1.0]
    assert found["first"] is not None and found["first"].tolist() == [1.0, 0.0, 0.0]
    calls = []

    def last(bag: object, tied: list[int]) -> int:
        calls.append(list(tied))
        return tied[-1]

    greedy_path(*bag_loss(predictions, "accuracy"), size=3, break_tie=last)
    assert calls == [[0, 1, 2], [2], [2]]


def test_random_ties_come_from_the_generator() -> None:
    predictions = replace(make_predictions("classification"), logits_MNC=torch.zeros(5, 40, 4))
    strategy = GreedySelection(ties="random")
    weights = [strategy.combine(predictions).weights for _ in range(12)]
    repeated = [strategy.combine(fresh(predictions)).weights for _ in range(3)]
    assert len({tuple(found.tolist()) for found in weights if found is not None}) > 1
    assert len({tuple(found.tolist()) for found in repeated if found is not None}) == 1
    assert all(sorted(found.tolist()) == [0, 0, 0, 0, 1] for found in weights if found is not None)


def test_small_losses_are_not_rounded() -> None:
    targets = torch.zeros(20, 1, dtype=torch.float64)
    values = torch.stack([targets + 3e-7, targets - 2e-7])
    combiner = GreedySelection(metric="rmse", size=5).combine(
        Predictions(logits_MNC=values, kind="regression", labels=targets)
    )
    assert combiner.weights is not None
    np.testing.assert_allclose(combiner.weights.numpy(), [0.4, 0.6], atol=1e-12)


def test_bags_average_selections_from_parts_of_the_members() -> None:
    predictions = make_predictions("classification", members=6)
    plain = GreedySelection().combine(fresh(predictions)).weights
    bagged = GreedySelection(bags=10).combine(fresh(predictions)).weights
    again = GreedySelection(bags=10).combine(fresh(predictions)).weights
    assert plain is not None and bagged is not None and again is not None
    assert torch.equal(bagged, again)
    assert not torch.allclose(bagged, plain)
    assert int((bagged > 0).sum()) > int((plain > 0).sum())
    whole = GreedySelection(bags=3, bag_fraction=1.0).combine(fresh(predictions)).weights
    assert whole is not None
    torch.testing.assert_close(whole, plain)
    one_each = GreedySelection(bags=8, bag_fraction=0.1).combine(fresh(predictions)).weights
    assert one_each is not None  # one member a bag: shares are counts of draws
    torch.testing.assert_close(one_each * 8, (one_each * 8).round())


def test_loss_between_the_best_member_and_the_optimum() -> None:
    predictions = make_predictions("classification", members=7, examples=300)
    task = Task(name="y", kind="classification", outputs=4)

    def loss(method: str) -> float:
        fusion = fuse(predictions.logits_MNC, method=method, labels=predictions.labels)
        return score(task, fusion.logits_NC, predictions.truth, "nll")

    assert loss("weighted_average") - 1e-8 <= loss("greedy_selection") <= float(predictions.scores("nll").min())
    assert loss("greedy_selection") - loss("weighted_average") < 1e-3


def test_the_record_says_what_the_second_step_offered() -> None:
    predictions = make_predictions("classification", members=3)
    diagnostics = GreedySelection().combine(predictions).diagnostics
    singles = predictions.scores("nll")
    assert diagnostics["fusion/best_single_loss"] == pytest.approx(float(singles.min()), abs=1e-10)
    best = int(singles.argmin())
    for member in range(3):
        counts = np.eye(3)[best] + np.eye(3)[member]
        average = fuse(predictions.logits_MNC, method="weighted_average", weights=counts).logits_NC
        expected = score(Task(name="y", kind="classification", outputs=4), average, predictions.truth, "nll")
        assert diagnostics[f"fusion/second_loss_{member}"] == pytest.approx(expected, abs=5.1e-7)


def test_one_member_needs_one_step() -> None:
    combiner = GreedySelection().combine(make_predictions("classification", members=1))
    assert combiner.weights is not None and combiner.weights.tolist() == [1.0]
    assert combiner.diagnostics["fusion/kept_steps"] == 1
    assert combiner.diagnostics["fusion/kept_members"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "`size` should be an integer >= 1. Found `size = 0`."),
        ({"size": 2.5}, "`size` should be an integer >= 1. Found `size = 2.5`."),
        ({"bags": 0}, "`bags` should be an integer >= 1. Found `bags = 0`."),
        ({"bag_fraction": 0.0}, r"`bag_fraction` should be in \(0, 1\]. Found `bag_fraction = 0.0`."),
        ({"init": 26}, r"`init` should be in \[0, size = 25\]. Found `init = 26`."),
        ({"ties": "last"}, "`ties` should be nll, first or random. Found `ties = last`."),
        ({"metric": "acuracy"}, "Did you mean `accuracy`?"),
    ],
)
def test_ranges(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        GreedySelection(**fields)  # type: ignore[arg-type]


def test_more_members_to_start_with_than_there_are() -> None:
    predictions = make_predictions("classification", members=4)
    with pytest.raises(HyperparameterError, match="`init` should be at most 4"):
        GreedySelection(init=5).combine(predictions)
    with pytest.raises(HyperparameterError, match="`init` should be at most 2"):
        GreedySelection(init=3, bags=2).combine(predictions)


def test_kinds_follow_the_metric() -> None:
    regression = make_predictions("regression")
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy\.metric=rmse"):
        fuse(regression.logits_MNC, method="greedy_selection", labels=regression.labels, kind="regression")
    classes = make_predictions("classification")
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy\.metric=nll"):
        fuse(classes.logits_MNC, method="greedy_selection", labels=classes.labels, metric="rmse")


@pytest.mark.parametrize("metric", ["nll", "brier", "accuracy"])
def test_no_labels(metric: str) -> None:
    predictions = replace(make_predictions("classification"), labels=torch.full((40,), -1))
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        GreedySelection(metric=metric).combine(predictions)
