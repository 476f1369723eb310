from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfuse.evaluation.cost import flops_per_example
from transfuse.models import build_cnn, build_mlp, build_vit
from transfuse.randomness import global_stream, make_generator
from transfuse.strategy.output_fusion import Fused
from transfuse.strategy.output_fusion.members import Members
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.output_fusion.stacked import Stacked, alike
from transfuse.types import Task

DIGIT = Task(name="digit", kind="classification", outputs=3)
SIZE = Task(name="size", kind="regression", outputs=2, location=(1.0, -2.0), scale=(3.0, 0.5))
TASKS = (DIGIT, SIZE)
SHAPE = (2, 8, 8)

BUILDS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[16, 8], dropout=0.5),
    "mlp-gelu": lambda: build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[16], activation="gelu"),
    "cnn": lambda: build_cnn(input_shape=SHAPE, tasks=TASKS, channels=[4, 8], features=16),
    "cnn-batch_norm": lambda: build_cnn(input_shape=SHAPE, tasks=TASKS, channels=[4], features=8, batch_norm=True),
}


def make_members(build: Callable[[], nn.Module], count: int = 3) -> Members:
    """Networks with random weights, biases and statistics, in evaluation mode."""
    networks = []
    for index in range(count):
        generator = make_generator("stacked", index)
        with global_stream(generator):
            network = build()
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        networks.append(network)
    members = Members(networks)
    members.eval()
    return members


def examples(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=make_generator("examples", count))


@torch.no_grad()
def looped(members: Members, inputs: Tensor) -> dict[str, Tensor]:
    outputs = [network(inputs) for network in members]
    return {task.name: torch.stack([output[task.name] for output in outputs]) for task in TASKS}


@torch.no_grad()
def outputs(members: Members, inputs: Tensor) -> dict[str, Tensor]:
    return members.outputs(inputs, [task.name for task in TASKS])


def assert_equal_to_the_loop(members: Members, inputs: Tensor) -> None:
    expected = looped(members, inputs)
    found = outputs(members, inputs)
    for task in TASKS:
        torch.testing.assert_close(found[task.name], expected[task.name], rtol=2e-6, atol=2e-6)


class Calls:
    """Counts how often the first member itself is run: never, where the members are stacked."""

    def __init__(self, members: Members) -> None:
        self.count = 0
        members[0].register_forward_hook(self.one_more)

    def one_more(self, *_: object) -> None:
        self.count += 1

    def during(self, run: Callable[[], object]) -> int:
        before = self.count
        run()
        return self.count - before


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_stacked_members_equal_the_loop(name: str, count: int) -> None:
    members = make_members(BUILDS[name])
    members.inference = "stacked"
    calls = Calls(members)
    assert calls.during(lambda: outputs(members, examples(count))) == 0
    assert_equal_to_the_loop(members, examples(count))


@pytest.mark.parametrize("name", ["mlp", "cnn-batch_norm"])
def test_stacked_weights_follow_the_members(name: str) -> None:
    members = make_members(BUILDS[name])
    inputs = examples(2)
    assert_equal_to_the_loop(members, inputs)
    before = outputs(members, inputs)["digit"]

    other = make_members(BUILDS[name], count=6)
    members.load_state_dict(Members(list(other)[3:]).state_dict())
    assert_equal_to_the_loop(members, inputs)
    assert not torch.allclose(outputs(members, inputs)["digit"], before)
    members[1].load_state_dict(other[0].state_dict(), assign=True)
    assert_equal_to_the_loop(members, inputs)
    with torch.no_grad():
        next(iter(members[2].parameters())).mul_(-2.0)
    assert_equal_to_the_loop(members, inputs)
    for buffer in members[0].buffers():
        buffer.add_(1)
    assert_equal_to_the_loop(members, inputs)
    members[0] = other[0]
    assert_equal_to_the_loop(members, inputs)


def test_stacked_weights_follow_the_dtype() -> None:
    members = make_members(BUILDS["mlp"])
    outputs(members, examples(1))
    members.double()
    found = outputs(members, examples(1).double())["digit"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, looped(members, examples(1).double())["digit"], rtol=1e-12, atol=1e-12)


def test_an_optimizer_step_and_training_mode_are_noticed() -> None:
    members = make_members(lambda: build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[8]))
    inputs = examples(4)
    outputs(members, inputs)
    optimizer = torch.optim.SGD(members.parameters(), lr=0.1)
    members.outputs(inputs, ["digit"])["digit"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in members[0].backbone.parameters())
    optimizer.step()
    assert_equal_to_the_loop(members, inputs)


def test_the_loop_serves_gradients_training_and_dropout() -> None:
    members = make_members(BUILDS["mlp"])
    calls, inputs = Calls(members), examples(2)
    assert calls.during(lambda: members.outputs(inputs, ["digit"])) == 1  # gradients are on
    members.train()
    assert calls.during(lambda: outputs(members, inputs)) == 1
    members.eval()
    assert calls.during(lambda: outputs(members, inputs)) == 0
    dropout = next(module for module in members[2].modules() if isinstance(module, nn.Dropout))
    dropout.train()
    assert calls.during(lambda: outputs(members, inputs)) == 1


@pytest.mark.parametrize(
    ("name", "count", "inference", "runs"),
    [
        ("mlp", 1, "loop", 1),
        ("mlp", 256, "auto", 0),  # 256 x 128 values
        ("mlp", 257, "auto", 1),
        ("mlp", 257, "stacked", 0),
        ("cnn", 16, "auto", 0),  # 16 x 128 values
        ("cnn", 17, "auto", 1),
        ("cnn", 17, "stacked", 0),
    ],
)
def test_what_is_chosen(name: str, count: int, inference: str, runs: int) -> None:
    members = make_members(BUILDS[name])
    members.inference = inference  # type: ignore[assignment]
    assert Calls(members).during(lambda: outputs(members, examples(count))) == runs


def test_members_of_different_or_unknown_architectures_are_run_in_turn() -> None:
    narrow = build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[4])
    wide = build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[5])
    tanh = build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[4], activation="tanh")
    vit = build_vit(input_shape=SHAPE, tasks=TASKS, patch=4, width=8, depth=1, heads=2)
    own = build_mlp(input_shape=SHAPE, tasks=TASKS, widths=[4])
    own.backbone.stages[0] = nn.Sequential(nn.Linear(128, 4), nn.Softplus())
    assert alike([narrow, narrow]) == [narrow, narrow]
    for networks in ([narrow, wide], [narrow, tanh], [vit, vit], [own, own], [nn.Linear(2, 2)], []):
        assert alike(networks) is None
    members = Members([narrow, wide]).eval()
    assert isinstance(members, Members)
    members.inference = "stacked"
    assert_equal_to_the_loop(members, examples(2))


def test_stacked_networks_know_when_they_are_out_of_date() -> None:
    networks = alike(make_members(BUILDS["mlp"]))
    assert networks is not None
    stacked = Stacked(networks)
    assert stacked.current
    next(iter(networks[0].parameters())).data = torch.zeros(16, 128)
    assert not stacked.current


def make_fused(count: int = 3) -> Fused:
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    networks = list(make_members(BUILDS["mlp"], count))
    combiners = {task.name: LinearPool(task.kind, weights=weights) for task in TASKS}
    return Fused(networks, combiners, kept=range(count), num_members=count).eval()


@torch.no_grad()
def test_the_fused_network_keeps_keys_copies_and_pickles() -> None:
    fused, inputs = make_fused(), examples(3)
    keys = {f"members.{index}.{key}" for index in range(3) for key in fused.members[index].state_dict()}
    before = fused(inputs)
    assert {key for key in fused.state_dict() if key.startswith("members")} == keys
    twin, stored = copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))
    for network in (twin, stored):
        assert torch.equal(network(inputs)["digit"], before["digit"])
    next(iter(twin.parameters())).zero_()
    assert not torch.equal(twin(inputs)["digit"], before["digit"])
    assert torch.equal(fused(inputs)["digit"], before["digit"])


def test_the_fused_network_is_equal_either_way_and_costs_the_same_operations() -> None:
    fused, inputs = make_fused(), examples(3)
    with torch.inference_mode():
        stacked = fused(inputs)
        fused.members.inference = "loop"
        for task, expected in fused(inputs).items():
            torch.testing.assert_close(stacked[task], expected, rtol=2e-6, atol=2e-6)
    in_turn = flops_per_example(fused, inputs)
    fused.members.inference = "stacked"
    assert flops_per_example(fused, inputs) == in_turn
