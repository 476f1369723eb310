from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import Score, score_weights
from transfuse.types import DataError, HyperparameterError, TaskKind


def predictions_with_accuracies(hits: list[int], *, classes: int = 4) -> Predictions:
    """Member m is right on the first `hits[m]` of 20 examples of class 0 .. and says class C - 1 on the others."""
    labels_N = torch.arange(20) % (classes - 1)
    said_MN = torch.stack([torch.where(torch.arange(20) < hit, labels_N, classes - 1) for hit in hits])
    logits_MNC = 3.0 * torch.nn.functional.one_hot(said_MN, classes).float()
    return Predictions(logits_MNC=logits_MNC, kind="classification", labels=labels_N)


def test_accuracy_above_chance() -> None:
    # accuracies .75, .5, .1; chance 1/4: (.5, .25, 0) / .75
    found = Score().weights(predictions_with_accuracies([15, 10, 2]))
    torch.testing.assert_close(found.values_M, torch.tensor([2 / 3, 1 / 3, 0.0], dtype=torch.float64))
    assert found.diagnostics["fusion/at_chance"] == 0.0


def test_power() -> None:
    found = Score(power=2.0).weights(predictions_with_accuracies([15, 10, 2]))
    torch.testing.assert_close(found.values_M, torch.tensor([0.8, 0.2, 0.0], dtype=torch.float64))


def test_chance_of_zero_gives_weights_that_are_nearly_uniform() -> None:
    found = Score(chance=0.0).weights(predictions_with_accuracies([15, 10, 5]))
    torch.testing.assert_close(found.values_M, torch.tensor([15.0, 10.0, 5.0], dtype=torch.float64) / 30)


def test_nobody_above_chance_is_uniform_and_said() -> None:
    found = Score().weights(predictions_with_accuracies([5, 0, 3]))
    assert found.values_M.tolist() == [1 / 3] * 3
    assert found.diagnostics["fusion/at_chance"] == 1.0


@pytest.mark.parametrize(
    ("metric", "kind", "chance"),
    [
        ("accuracy", "classification", 0.25),
        ("accuracy", "multilabel", 1 / 16),
        ("auroc", "classification", 0.5),
        ("f1_macro", "classification", 0.0),
        ("r2", "regression", 0.0),
    ],
)
def test_automatic_chance(metric: str, kind: TaskKind, chance: float) -> None:
    scores_M = torch.tensor([chance + 0.3, chance + 0.1, chance - 0.2])
    predictions = Predictions(logits_MNC=torch.zeros(3, 5, 4), kind=kind, scores_M=scores_M)
    expected = torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(Score(metric=metric).weights(predictions).values_M, expected, rtol=0, atol=1e-6)


def test_powers_of_tiny_margins_do_not_underflow() -> None:
    found = score_weights(torch.tensor([1e-12, 1e-12], dtype=torch.float64), power=100.0)
    assert found.tolist() == [0.5, 0.5]


def test_kinds_follow_the_metric() -> None:
    assert Score(metric="r2").kinds == {"regression"}
    assert Score(metric="average_precision").kinds == {"multilabel"}
    assert Score().kinds == {"classification", "multilabel"}


def test_an_undefined_score_is_refused() -> None:
    one_class = Predictions(
        logits_MNC=torch.zeros(2, 4, 3), kind="classification", labels=torch.zeros(4, dtype=torch.int64)
    )
    with pytest.raises(DataError, match="`auroc`"):
        Score(metric="auroc").weights(one_class)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "nll"}, "should be one where higher is better. Found `weights.metric = nll`."),
        ({"metric": "acuracy"}, "Did you mean `accuracy`?"),
        ({"power": 0.0}, "`weights.power` should be > 0. Found `weights.power = 0.0`."),
        ({"power": float("inf")}, "`weights.power` should be a finite number > 0. Found `weights.power = inf`."),
        ({"chance": float("nan")}, "`weights.chance` should be a finite number or auto. Found `weights.chance = nan`."),
        ({"chance": None}, "`weights.chance` should be a finite number or auto. Found `weights.chance = None`."),
        ({"chance": "automatic"}, "`weights.chance` should be a finite number or auto."),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        Score(**fields)
