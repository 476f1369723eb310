from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import GreedySoup, greedy_selection, merge
from transfuse.types import HyperparameterError, NeedsContextError, Task


def reference(singles: list[float], averages: dict[frozenset[int], float]) -> list[int]:
    """The published recipe, written another way: sets, and a table of all averages."""
    ranked = [index for _, index in sorted((-value, index) for index, value in enumerate(singles))]
    soup = [ranked.pop(0)]
    best = singles[soup[0]]
    while ranked:
        trial = [*soup, ranked.pop(0)]
        if averages[frozenset(trial)] >= best:
            best, soup = averages[frozenset(trial)], trial
    return soup


@settings(deadline=None, database=None)
@given(st.data(), st.integers(1, 5))
def test_greedy_selection_equals_the_recipe(data: st.DataObject, num_models: int) -> None:
    value = st.integers(0, 6).map(float)
    singles = data.draw(st.lists(value, min_size=num_models, max_size=num_models))
    subsets = [frozenset(pair) for size in range(2, 6) for pair in combinations(range(num_models), size)]
    averages = {subset: data.draw(value) for subset in subsets}
    judged: list[frozenset[int]] = []

    def judge(members: tuple[int, ...]) -> float:
        judged.append(frozenset(members))
        return averages[judged[-1]]

    kept = greedy_selection(singles, judge)
    assert list(kept) == reference(singles, averages)
    assert singles[kept[0]] == max(singles)
    assert len(judged) == num_models - 1
    final = singles[kept[0]] if len(kept) == 1 else averages[frozenset(kept)]
    assert final >= max(singles)


def test_better_refuses_an_equal_score() -> None:
    assert greedy_selection([1.0, 0.5], lambda members: 1.0) == (0, 1)
    assert greedy_selection([1.0, 0.5], lambda members: 1.0, accept="better") == (0,)


def validation_nll(network: nn.Module, data) -> float:
    outputs = predict(network, data.validation.inputs)
    return sum(
        nn.functional.cross_entropy(outputs[task.name].double(), data.validation.targets[task.name]).item()
        for task in data.tasks
    ) / len(data.tasks)


def averaged(toys, members, chosen, tasks):
    network = toys.network(0, tasks)
    states = [members[index].state_dict() for index in chosen]
    network.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    return network.eval()


@pytest.mark.parametrize("spread", [0, 1])
def test_greedy_on_toy_networks_equals_an_independent_loop(toys, spread: int) -> None:
    data = toys.development()
    _, members = toys.finetuned(4, data)
    if spread:
        members[1] = toys.train(toys.network(7), data.train, seed=3)  # of another start
    fused = GreedySoup().apply(toys.context(members, data))
    singles = [-validation_nll(member, data) for member in members]
    subsets = [frozenset(chosen) for size in (2, 3, 4) for chosen in combinations(range(4), size)]
    averages = {
        chosen: -validation_nll(averaged(toys, members, sorted(chosen), data.tasks), data) for chosen in subsets
    }
    kept = reference(singles, averages)
    assert fused.diagnostics["kept"] == kept
    assert fused.members == tuple(sorted(kept))
    assert fused.weights["y"] == [1 / len(kept) if index in kept else 0.0 for index in range(4)]
    expected = averaged(toys, members, sorted(kept), data.tasks).state_dict()
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
    assert fused.looks == 7 and len(fused.diagnostics["scores"]) == 7
    final = -singles[kept[0]] if len(kept) == 1 else -averages[frozenset(kept)]
    assert fused.fit["y"]["nll"] == pytest.approx(final, rel=1e-5)
    assert fused.fit["y"]["nll"] <= min(-value for value in singles) + 1e-9
    assert fused.validation["y"]["nll"] >= fused.fit["y"]["nll"] - 1e-9


def test_unrelated_members_leave_the_best_alone(toys) -> None:
    data = toys.development()
    members = [toys.train(toys.network(seed), data.train, seed=seed) for seed in range(3)]
    context = toys.context(members, data)
    fused = GreedySoup(accept="better").apply(context)
    assert len(fused.members) == 1
    best = fused.members[0]
    assert validation_nll(members[best], data) == min(validation_nll(member, data) for member in members)
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, members[best].state_dict()[key])
    assert fused.diagnostics["verdict"] == "no mixture beats the best member"


def test_the_metric_decides(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    context = toys.context(members, data)
    assert GreedySoup().apply(context).diagnostics["metric"] == "nll"
    assert GreedySoup().apply(toys.with_metric(context, "brier")).diagnostics["metric"] == "brier"
    by_accuracy = GreedySoup(metric="accuracy").apply(context)
    accuracies = [entry["accuracy"] for entry in by_accuracy.diagnostics["scores"]]
    assert by_accuracy.fit["y"]["accuracy"] == max(accuracies) and all(0 <= value <= 1 for value in accuracies)


def test_candidates_with_batch_norm_are_judged_as_they_end(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data, batch_norm=True)
    fused = GreedySoup().apply(toys.context(members, data))
    assert fused.fit["y"]["nll"] == pytest.approx(validation_nll(fused.network, data), rel=1e-5)
    assert fused.fit["y"]["nll"] <= min(validation_nll(member, data) for member in members) + 1e-9
    assert fused.diagnostics["batch_norm"] == ("reestimate" if len(fused.members) > 1 else "none")


def test_backbones_with_heads_of_their_own(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    start = toys.network(0, tasks)
    members = []
    for task in tasks:
        member = toys.network(5, [task])
        member.backbone.load_state_dict(start.backbone.state_dict())
        members.append(toys.train(member, data.train, seed=1))
    fused = GreedySoup().apply(toys.context(members, data, start))
    assert set(fused.fit) == {"a", "b"} and fused.looks == 3
    assert validation_nll(fused.network, data) == pytest.approx(
        min(entry["nll"] for entry in fused.diagnostics["scores"]), rel=1e-5
    )
    assert torch.equal(fused.network.heads["b"].linear.weight, members[1].heads["b"].linear.weight)


def test_unknown_values_are_refused(toys) -> None:
    with pytest.raises(HyperparameterError, match=r"`metric` should be one of .*Did you mean `accuracy`"):
        GreedySoup(metric="acuracy")
    with pytest.raises(HyperparameterError, match=r"`accept` should be not_worse or better. Found `accept = equal`"):
        GreedySoup(accept="equal")  # type: ignore[arg-type]
    data = toys.development()
    pool = toys.context([toys.network(0), toys.network(1)], data).base_models.description
    with pytest.raises(HyperparameterError, match="`metric` should be one of accuracy"):
        GreedySoup(metric="rmse").check(data, pool)


def test_merge_says_what_is_missing() -> None:
    with pytest.raises(NeedsContextError, match="weight_fusion/greedy_soup needs the networks and labelled validation"):
        merge([{"w": torch.zeros(1)}] * 2, method="greedy_soup")
