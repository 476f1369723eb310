"""A user's own module behind the interface of the shipped networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from transfuse.models import Custom, build_custom, load, predict
from transfuse.models.network import head_names
from transfuse.types import ConfigError, CoverageError, Task

NETS = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, hidden=4, outputs=3):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.first = nn.Linear(5, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, inputs):
        return self.last(self.norm(self.first(inputs) * self.scale).relu())

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(5, 4)
        self.a = nn.Linear(4, 3)
        self.b = nn.Linear(4, 1)

    def forward(self, inputs):
        hidden = self.trunk(inputs).relu()
        return {"b": self.b(hidden), "a": self.a(hidden)}

class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, inputs):
        return self.net(inputs)

class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs

def make(outputs):
    return nn.Linear(5, outputs)

def text():
    return "no module"
"""
A = Task(name="a", kind="classification", outputs=3)
B = Task(name="b", kind="regression", outputs=1)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_tensor_is_the_output_of_the_only_task() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny", arguments={"hidden": 6})
    inputs = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    outputs = predict(network, inputs)
    network.eval()
    assert list(outputs) == ["a"]
    assert torch.equal(outputs["a"], network.module(inputs))
    assert network.module.first.out_features == 6


def test_a_function_may_make_the_module() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.make", arguments={"outputs": 3})
    assert network(torch.zeros(2, 5))["a"].shape == (2, 3)


def test_a_dict_serves_several_tasks() -> None:
    network = build_custom(input_shape=(5,), tasks=(A, B), module="user_nets.Two")
    assert {name: tuple(output.shape) for name, output in network(torch.zeros(2, 5)).items()} == {
        "a": (2, 3),
        "b": (2, 1),
    }


def test_the_trial_leaves_no_trace() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    assert all(module.training for module in network.modules())
    assert network.module.norm.num_batches_tracked == 0


def test_groups_follow_the_children_of_the_module() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    assert network.groups() == [
        ("own", ["module.scale"]),
        ("first", ["module.first.weight", "module.first.bias"]),
        ("norm", ["module.norm.weight", "module.norm.bias"]),
        ("last", ["module.last.weight", "module.last.bias"]),
    ]
    assert {name for _, names in network.groups() for name in names} == dict(network.named_parameters()).keys()


def test_groups_look_into_a_module_that_only_wraps_another() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Wrapper")
    assert network.groups() == [
        ("0", ["module.net.0.weight", "module.net.0.bias"]),
        ("2", ["module.net.2.weight", "module.net.2.bias"]),
    ]


def test_groups_of_a_single_layer() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.make", arguments={"outputs": 3})
    assert network.groups() == [("own", ["module.weight", "module.bias"])]


def test_the_users_own_state_dict_loads() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    other = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    report = load(other.module.state_dict(), network)
    assert report.coverage == 1.0
    assert torch.equal(network.module.first.weight, other.module.first.weight)


@pytest.mark.parametrize(
    ("module", "tasks", "message"),
    [
        (
            "user_nets.Missing",
            (A,),
            "model.module=user_nets.Missing cannot be imported: module 'user_nets' has no attribute 'Missing'. It "
            "should be the dotted path of a class or function on the Python path; PYTHONPATH=. adds the current "
            "folder.",
        ),
        ("no_such_nets.Net", (A,), "model.module=no_such_nets.Net cannot be imported: No module named 'no_such_nets'."),
        ("broken_nets.Net", (A,), "model.module=broken_nets.Net cannot be imported: No module named 'a_package_that"),
        ("Net", (A,), "model.module=Net cannot be imported: Empty module name."),
        ("user_nets.make", (A,), "model.module=user_nets.make cannot be built with {}: make() missing 1 required"),
        ("user_nets.text", (A,), "model.module=user_nets.text should make a torch.nn.Module. Found str."),
        (
            "user_nets.Tiny",
            (Task(name="a", kind="classification", outputs=10),),
            "model.module=user_nets.Tiny should return a tensor of shape (1, 10) for one input of shape (5,). "
            "Found (1, 3).",
        ),
        (
            "user_nets.Tiny",
            (A, B),
            "model.module=user_nets.Tiny should return a dict of tensors of shapes {'a': (1, 3), 'b': (1, 1)} for one "
            "input of shape (5,). Found (1, 3).",
        ),
        (
            "user_nets.Two",
            (A,),
            "model.module=user_nets.Two should return a tensor of shape (1, 3) for one input of shape (5,). "
            "Found {'b': (1, 1), 'a': (1, 3)}.",
        ),
        (
            "user_nets.Pair",
            (A,),
            "model.module=user_nets.Pair should return a tensor or a dict of tensors. Found tuple.",
        ),
    ],
)
def test_what_cannot_be_used_is_named(module: str, tasks: tuple[Task, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_custom(input_shape=(5,), tasks=tasks, module=module)
    assert str(caught.value).startswith(message)


def test_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model.module=user_nets.Tiny fails on an input of shape \(1, 6\): mat1"):
        build_custom(input_shape=(6,), tasks=(A,), module="user_nets.Tiny")


def test_the_head_of_a_users_module_is_its_last_child() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    assert head_names(network) == {"module.last.weight", "module.last.bias"}


def test_buffers_and_tied_names_follow_their_parameters() -> None:
    shared = nn.Linear(4, 4)
    head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    module = nn.ModuleDict({"first": shared, "norm": nn.BatchNorm1d(4), "again": shared, "head": head})
    network = Custom(module, "y")
    assert head_names(network) == {key for key in network.state_dict() if key.startswith("module.head.")}
    head[1].weight = module["first"].weight  # tied to the body: no part of the head
    assert "module.head.1.weight" not in head_names(network)


def test_coverage_counts_the_backbone_of_a_users_module_alone() -> None:
    network = build_custom(input_shape=(5,), tasks=(A,), module="user_nets.Tiny")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    before = network.module.last.bias.detach().clone()
    state["module.last.weight"] = torch.zeros(7, state["module.last.weight"].shape[1])  # the bias would fit
    state["module.last.bias"] = state["module.last.bias"] + 1
    report = load(state, network, min_coverage=1.0)
    assert report.coverage == 1.0
    assert {pair.target for pair in report.dropped} == {"module.last.weight", "module.last.bias"}
    assert report.head == {"module.last.weight", "module.last.bias"}
    assert torch.equal(network.module.last.bias, before)
    headless = {key: value for key, value in state.items() if not key.startswith("module.last.")}
    assert load(headless, network, min_coverage=1.0).coverage == 1.0
    with pytest.raises(CoverageError, match="`module.first.weight`"):
        load({key: value for key, value in headless.items() if "first" not in key}, network, min_coverage=0.9)
