from __future__ import annotations

import pytest
import torch

from transfuse.randomness import make_generator
from transfuse.strategy.cross_fit import best_candidate, cross_fit, cross_fit_selection, folds
from transfuse.types import HyperparameterError, Task

DIGIT = Task(name="digit", kind="classification", outputs=3)
SIZE = Task(name="size", kind="regression", outputs=1)
FAR = Task(name="far", kind="regression", outputs=1, scale=(1000.0,))


def test_folds_are_balanced_in_size_and_in_every_class() -> None:
    labels_N = torch.tensor([0] * 23 + [1] * 11 + [2] * 3)
    folds_N = folds(labels_N, 37, 5, make_generator("folds"))
    assert folds_N.dtype == torch.int64
    sizes = folds_N.bincount(minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for label in range(3):
        counts = folds_N[labels_N == label].bincount(minlength=5)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("labels", [None, torch.zeros(12, 2), torch.zeros(12)])
def test_folds_of_other_labels_are_balanced(labels: torch.Tensor | None) -> None:
    assert folds(labels, 12, 4, make_generator("folds")).bincount().tolist() == [3, 3, 3, 3]


def test_folds_depend_on_the_generator_alone() -> None:
    labels_N = torch.arange(40) % 4
    one, two, other = (folds(labels_N, 40, 5, make_generator(name)) for name in ("a", "a", "b"))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_as_many_folds_as_examples() -> None:
    assert sorted(folds(None, 4, 4, make_generator("folds")).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("examples", "k", "message"), [(3, 5, "`cross_fit = 5` and 3 examples"), (9, 1, ">= 2")])
def test_impossible_folds(examples: int, k: int, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        folds(None, examples, k, make_generator("folds"))


def test_cross_fit_never_shows_an_example_its_own_fit() -> None:
    # the output of an example says which examples its fit saw
    folds_N = folds(None, 13, 4, make_generator("folds"))

    def fit_and_predict(rest: torch.Tensor, held: torch.Tensor, fold: int) -> torch.Tensor:
        seen = torch.zeros(13)
        seen[rest] = 1.0
        assert (folds_N[held] == fold).all()
        return seen.repeat(len(held), 1)

    seen_NN = cross_fit(fit_and_predict, folds_N)
    assert torch.equal(seen_NN, (folds_N[:, None] != folds_N).float())


def test_selection_uses_the_other_folds_only() -> None:
    # each candidate is perfect on one fold and bad on the other: each fold gets the one that is bad there
    folds_N = torch.tensor([0, 0, 1, 1])
    targets = {"size": torch.zeros(4, 1)}
    first = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    second = torch.tensor([[9.0], [9.0], [0.0], [0.0]])
    chosen = cross_fit_selection(
        {"size": SIZE}, [{"size": first}, {"size": second}], targets, metric="rmse", folds_N=folds_N
    )
    assert chosen["size"].flatten().tolist() == [9.0, 9.0, 9.0, 9.0]


def test_selection_with_one_candidate_is_that_candidate() -> None:
    outputs = {"digit": torch.randn(10, 3, generator=make_generator("outputs"))}
    targets = {"digit": torch.arange(10) % 3}
    folds_N = folds(targets["digit"], 10, 5, make_generator("folds"))
    chosen = cross_fit_selection({"digit": DIGIT}, [outputs], targets, metric="accuracy", folds_N=folds_N)
    assert torch.equal(chosen["digit"], outputs["digit"])


def test_selection_over_tasks_takes_whole_networks() -> None:
    good, bad = torch.zeros(6, 1), torch.ones(6, 1)
    targets = {"size": torch.zeros(6, 1), "far": torch.zeros(6, 1)}
    # network 0 is better by 1 in `size`, worse by 1 in `far`, which counts a thousandth
    networks = [{"size": good, "far": bad}, {"size": bad, "far": good}]
    chosen = cross_fit_selection(
        {"size": SIZE, "far": FAR}, networks, targets, metric="rmse", folds_N=torch.tensor([0, 1, 0, 1, 0, 1])
    )
    assert torch.equal(chosen["size"], good)
    assert torch.equal(chosen["far"], bad)


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("nll", 0)])
def test_best_candidate_knows_directions(metric: str, best: int) -> None:
    labels_N = torch.tensor([0, 1, 2, 0])
    modest = torch.zeros(4, 3)  # nll log 3, accuracy 1/2
    bold = 20.0 * torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 1]), 3)  # accuracy 3/4, one costly error
    candidates = [{"digit": modest}, {"digit": bold}]
    assert best_candidate({"digit": DIGIT}, candidates, {"digit": labels_N}, metric=metric) == best


def test_a_metric_of_another_kind_is_replaced_by_the_kinds_own() -> None:
    candidates = [{"size": torch.ones(4, 1)}, {"size": torch.zeros(4, 1)}]
    for metric in ("accuracy", "nll"):
        assert best_candidate({"size": SIZE}, candidates, {"size": torch.zeros(4, 1)}, metric=metric) == 1


def test_equal_candidates_give_the_first() -> None:
    candidates = [{"size": torch.ones(4, 1)}] * 3
    assert best_candidate({"size": SIZE}, candidates, {"size": torch.zeros(4, 1)}, metric="rmse") == 0


def test_where_the_metric_is_undefined_the_first_is_taken() -> None:
    # one class only: there is no auroc
    candidates = [{"digit": torch.zeros(4, 3)}, {"digit": torch.ones(4, 3)}]
    labels_N = torch.zeros(4, dtype=torch.int64)
    assert best_candidate({"digit": DIGIT}, candidates, {"digit": labels_N}, metric="auroc") == 0
