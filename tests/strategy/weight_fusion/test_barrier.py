from __future__ import annotations

import pytest
import torch
from torch import nn

from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import TaskArithmetic, UniformSoup
from transfuse.strategy.weight_fusion.barrier import Path, barrier_of, best_member, interpolated, paths
from transfuse.strategy.weight_fusion.diagnostics import verdict
from transfuse.strategy.weight_fusion.parts import take_apart
from transfuse.types import Task


def test_barrier_is_the_height_above_the_chord() -> None:
    assert barrier_of([1.0, 3.0, 2.0]) == 1.5
    assert barrier_of([0.9, 0.3, 0.7], upward=True) == pytest.approx(0.5)
    assert barrier_of([1.0, 0.0, 1.0]) == 0.0  # a path through a valley has none


def test_interpolated_statistics_follow_the_law_of_total_variance() -> None:
    first = {"n.running_mean": torch.tensor([0.0]), "n.running_var": torch.tensor([1.0]), "n.count": torch.tensor(1)}
    second = {"n.running_mean": torch.tensor([2.0]), "n.running_var": torch.tensor([3.0]), "n.count": torch.tensor(1)}
    middle = interpolated(first, second, 0.25)
    # E[var] + var[mean] = 0.75 * 1 + 0.25 * 3 + 0.75 * 0.25 * 4
    assert middle["n.running_mean"].item() == 0.5 and middle["n.running_var"].item() == pytest.approx(2.25)


def test_paths_are_the_loss_of_interpolated_networks(toys) -> None:
    data = toys.development()
    networks = [toys.train(toys.network(seed), data.train, seed=seed) for seed in range(3)]
    context = toys.context(networks, data)
    parts = take_apart(context, with_base=False)
    found = paths(context, parts)
    assert [(path.first, path.second) for path in found] == [(0, 1), (0, 2), (1, 2)]
    network = toys.network(0)
    for path in found:
        first, second = parts.states[path.first], parts.states[path.second]
        for step, value in enumerate(path.scores["y"]["nll"]):
            t = step / 10
            network.load_state_dict({key: (1 - t) * first[key] + t * second[key] for key in first})
            outputs = predict(network, data.validation.inputs)["y"]
            expected = nn.functional.cross_entropy(outputs, data.validation.targets["y"]).item()
            assert value == pytest.approx(expected, rel=1e-4)


def test_many_models_are_compared_with_the_best(toys) -> None:
    data = toys.development()
    networks = [toys.train(toys.network(seed), data.train, seed=seed, steps=5 + 5 * seed) for seed in range(6)]
    context = toys.context(networks, data)
    found = paths(context, take_apart(context, with_base=False))
    scores = [member.validation["y"]["nll"] for member in context.base_models]
    best = scores.index(min(scores))
    assert [(path.first, path.second) for path in found] == [(best, index) for index in range(6) if index != best]


def test_batch_norm_is_measured_at_each_point(toys) -> None:
    data = toys.development()
    start, networks = toys.finetuned(2, data, batch_norm=True)
    context = toys.context(networks, data, start)
    (path,) = paths(context, take_apart(context, with_base=False))
    soup = UniformSoup().apply(context).network
    middle = nn.functional.cross_entropy(
        predict(soup, data.validation.inputs)["y"], data.validation.targets["y"]
    ).item()
    assert path.scores["y"]["nll"][5] == pytest.approx(middle, rel=0.05)
    assert {"nll", "accuracy"} == set(path.scores["y"])


@pytest.mark.parametrize(("count", "walked"), [(3, [(0, 1), (0, 2), (1, 2)]), (4, None)])
def test_with_batch_norm_all_pairs_of_three_are_walked(toys, count: int, walked) -> None:
    data = toys.development()
    start, networks = toys.finetuned(count, data, batch_norm=True)
    context = toys.context(networks, data, start)
    best = best_member(context, take_apart(context, with_base=False))
    found = [(path.first, path.second) for path in paths(context, take_apart(context, with_base=False))]
    assert found == (walked or [(best, index) for index in range(count) if index != best])


def single_task_pool(toys, batch_norm: bool = False):
    """One network a task from one start: three tasks on the same inputs."""
    tasks = tuple(Task(name=name, kind="classification", outputs=3) for name in ("a", "b", "c"))
    data = toys.development(tasks)
    start = toys.train(toys.network(0, tasks, batch_norm), data.train, seed=0, steps=10)
    members = []
    for index, task in enumerate(tasks):
        member = toys.network(index, (task,), batch_norm)
        backbone = {key: value for key, value in start.state_dict().items() if key.startswith("backbone.")}
        member.load_state_dict(backbone, strict=False)
        members.append(toys.train(member, data.train, seed=index))
    return data, members


def test_with_one_head_a_member_each_task_is_judged_by_its_own(toys) -> None:
    data, members = single_task_pool(toys)
    context = toys.context(members, data)
    found = paths(context, take_apart(context, with_base=False))
    assert [(path.first, path.second, dict(path.owners)) for path in found] == [
        (0, 1, {"a": 0, "b": 1}),
        (0, 2, {"a": 0, "c": 2}),
        (1, 2, {"b": 1, "c": 2}),
    ]
    for path in found:
        above = []
        for task, owner in path.owners.items():
            network = toys.network(0, [each for each in data.tasks if each.name == task])
            first, second = (members[index].state_dict() for index in (path.first, path.second))
            values = []
            for step in range(11):
                t = step / 10
                head = {key: value for key, value in members[owner].state_dict().items() if key.startswith("heads.")}
                trunk = {key: (1 - t) * first[key] + t * second[key] for key in first if key.startswith("backbone.")}
                network.load_state_dict({**head, **trunk})
                outputs = predict(network, data.validation.inputs)[task]
                values.append(nn.functional.cross_entropy(outputs, data.validation.targets[task]).item())
            assert path.scores[task]["nll"] == pytest.approx(values, rel=1e-4)
            own = context.base_models[owner].validation[task]["nll"]
            assert values[0 if owner == path.first else -1] == pytest.approx(own, rel=1e-5)
            above.append([value - own for value in values])
        assert path.excess() == pytest.approx(min(sum(pair) / 2 for pair in zip(*above, strict=True)), rel=1e-3)
        assert path.row()["excess"] == path.excess()


def test_a_pool_of_single_tasks_records_its_barriers(toys) -> None:
    data, members = single_task_pool(toys, batch_norm=True)
    fused = UniformSoup().apply(toys.context(members, data))
    barrier = fused.diagnostics["barrier"]
    assert [row["models"] for row in barrier["paths"]] == [[0, 1], [0, 2], [1, 2]]
    heights = [found["nll"] for row in barrier["paths"] for found in row["barrier"].values()]
    assert len(heights) == 6 and barrier["largest"] == max(heights)
    assert barrier["mean"] == pytest.approx(sum(heights) / 6)
    assert barrier["excess"] == max(row["excess"] for row in barrier["paths"])


def test_where_the_backbone_alone_is_fused_the_head_that_stays_judges(toys) -> None:
    data = toys.development()
    _, networks = toys.finetuned(3, data)
    context = toys.context(networks, data)
    found = paths(context, take_apart(context, with_base=False, fuse="backbone"))
    assert [(path.first, path.second, dict(path.owners)) for path in found] == [(0, 1, {"y": 0}), (0, 2, {"y": 0})]


def test_excess_is_the_least_mean_rise_over_own_losses() -> None:
    scores = {"a": {"nll": (1.0, 2.0, 5.0)}, "b": {"nll": (4.0, 1.5, 1.0)}}
    path = Path(first=0, second=1, scores=scores, owners={"a": 0, "b": 1})
    # (0 + 3) / 2, (1 + 0.5) / 2, (4 + 0) / 2
    assert path.excess() == 0.75
    assert Path(first=0, second=1, scores=scores).excess() is None and "excess" not in path_row(scores)
    mixed = {"a": {"nll": (1.0, 2.0)}, "b": {"rmse": (2.0, 1.0)}}
    assert Path(first=0, second=1, scores=mixed, owners={"a": 0, "b": 1}).excess() is None


def path_row(scores) -> dict:
    return Path(first=0, second=1, scores=scores).row()


def test_the_verdict_tells_distant_tasks_from_a_scale_that_goes_too_far(toys) -> None:
    data, members = single_task_pool(toys)
    start = toys.network(9, data.tasks)
    far = TaskArithmetic(scale=8.0).apply(toys.context(members, data, start)).diagnostics
    near = {**far, "mean_cosine": 0.9, "barrier": {**far["barrier"], "excess": 0.05, "largest": 3.0}}
    apart = {**far, "mean_cosine": 0.9, "barrier": {**far["barrier"], "excess": 0.5, "largest": 0.0}}
    context = toys.context(members, data, start)
    parts = take_apart(context, with_base=True)
    scored = {task.name: {"nll": 99.0} for task in data.tasks}
    assert "at best 0.05 nats above their own losses" in (told := verdict(context, parts, scored, near) or "")
    assert "went too far. Try another scale." in told
    assert "trained too far apart (at best 0.5 nats" in (verdict(context, parts, scored, apart) or "")


def test_the_record_holds_paths_and_geometry(toys) -> None:
    data = toys.development()
    start, networks = toys.finetuned(2, data)
    diagnostics = UniformSoup().apply(toys.context(networks, data, start)).diagnostics
    assert diagnostics["geometry"]["vectors"] == "task vectors"
    assert diagnostics["barrier"]["largest"] == diagnostics["barrier"]["paths"][0]["barrier"]["y"]["nll"]
    alone = UniformSoup().apply(toys.context(networks, data)).diagnostics
    assert alone["geometry"]["vectors"] == "weights"
    assert UniformSoup().apply(toys.context(networks[:1], data)).diagnostics["barrier"] is None
