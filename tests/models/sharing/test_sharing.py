from __future__ import annotations

import copy
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.models.sharing import CGC, MTAN, PLE, CrossStitch, DSelectK, HardSharing, MMoE, Sharing
from transfuse.models.sharing.base import Gate, shapes
from transfuse.models.sharing.cgc import CGCNetwork
from transfuse.models.sharing.cross_stitch import stitched
from transfuse.models.sharing.dselect_k import DSelectKNetwork, Selectors, smoothstep
from transfuse.models.sharing.mmoe import MMoENetwork
from transfuse.types import HyperparameterError, Task

GOLDEN = Path(__file__).parents[2] / "golden" / "multi_task"
RECORDS = {record["sharing"]: record for record in json.loads((GOLDEN / "index.json").read_text()).get("sharing", [])}
ARRAYS = np.load(GOLDEN / "golden.npz")
TASKS = (
    Task(name="a", kind="classification", outputs=3),
    Task(name="b", kind="regression", outputs=1, location=(2.0,), scale=(3.0,)),
    Task(name="c", kind="multilabel", outputs=4),
)
SOFT: dict[str, Sharing] = {
    "cross_stitch": CrossStitch(),
    "cross_stitch_channels": CrossStitch(per_channel=True),
    "mmoe": MMoE(),
    "mmoe_stem": MMoE(gate_on="stem"),
    "cgc": CGC(),
    "ple": PLE(),
    "dselect_k": DSelectK(),
    "dselect_3": DSelectK(num_experts=3, entropy_weight=0.1),
    "mtan": MTAN(),
}
BACKBONES = {
    "mlp": partial(build_mlp, widths=(8, 6)),
    "cnn": partial(build_cnn, channels=(4, 6), features=10, batch_norm=True),
    "resnet": partial(build_resnet, channels=(4, 6), blocks=(1, 1)),
    "vit": partial(build_vit, width=8, heads=2, depth=2),
}
SHAPE = (1, 8, 8)


def network(sharing: Sharing, backbone: str = "mlp", tasks: tuple[Task, ...] = TASKS) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sharing.build(BACKBONES[backbone], input_shape=SHAPE, tasks=tasks)


def images(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", SOFT)
def test_every_backbone_can_be_shared_in_every_way(name: str, backbone: str) -> None:
    module = network(SOFT[name], backbone).train()
    outputs = module(images())
    assert {task: tuple(values.shape) for task, values in outputs.items()} == {"a": (5, 3), "b": (5, 1), "c": (5, 4)}
    sum(values.square().mean() for values in outputs.values()).backward()  # type: ignore[union-attr]
    unused = [key for key, value in module.named_parameters() if value.grad is None]
    assert not unused
    names = [key for _, group in module.groups() for key in group]
    assert sorted(names) == sorted(key for key, _ in module.named_parameters())
    assert all(key.startswith("heads.") for key in module.groups()[-1][1])


@pytest.mark.parametrize("name", SOFT)
def test_a_saved_network_is_the_same_function(name: str) -> None:
    first, second = network(SOFT[name]).eval(), copy.deepcopy(network(SOFT[name]).eval())
    for parameter in second.parameters():
        nn.init.normal_(parameter)
    assert not torch.equal(first(images())["a"], second(images())["a"])
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(first(images())[task.name], second(images())[task.name]) for task in TASKS)


@pytest.mark.parametrize("name", SOFT)
def test_a_single_task_has_the_plain_network(name: str) -> None:
    found, plain = network(SOFT[name], tasks=TASKS[:1]), network(HardSharing(), tasks=TASKS[:1])
    assert found.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in found.state_dict().items())


def test_hard_sharing_is_the_builder_itself() -> None:
    plain = BACKBONES["mlp"](input_shape=SHAPE, tasks=TASKS)
    assert network(HardSharing()).state_dict().keys() == plain.state_dict().keys()


def test_experts_start_from_different_weights() -> None:
    module = network(MMoE())
    first, second = (module.experts[index].stages[0][0].weight for index in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("module", [nn.Linear(6, 3), nn.Flatten()])
def test_other_networks_are_refused(module: nn.Module) -> None:
    with pytest.raises(HyperparameterError, match="needs a network of one backbone and a head a task. Found"):
        MMoE().build(lambda **_: module, input_shape=(6,), tasks=TASKS)
    assert HardSharing().build(lambda **_: module, input_shape=(6,), tasks=TASKS) is module


def loaded(module: nn.Module, prefix: str, names: dict[str, str]) -> nn.Module:
    """The golden modules' weights under our keys: start of our key -> start of theirs."""
    state = {}
    for key in module.state_dict():
        ours, theirs = next((ours, theirs) for ours, theirs in names.items() if key.startswith(ours))
        state[key] = torch.from_numpy(ARRAYS[prefix + theirs + key.removeprefix(ours)])
    module.load_state_dict(state)
    return module


def linears(count: int) -> list[nn.Module]:
    return [nn.Linear(6, 4).double() for _ in range(count)]


def golden(sharing: str) -> tuple[Tensor, dict[str, Tensor], nn.ModuleDict]:
    record = RECORDS[sharing]
    wanted = {task: torch.from_numpy(ARRAYS[key]) for task, key in record["outputs"].items()}
    return torch.from_numpy(ARRAYS[record["input"]]), wanted, nn.ModuleDict({name: nn.Identity() for name in "abc"})


def test_mmoe_golden() -> None:
    inputs, wanted, heads = golden("mmoe")
    gates = nn.ModuleDict({name: Gate(6, 4).double() for name in "abc"})
    names = {"experts.": "experts_shared."} | {f"gates.{t}.linear": f"gate_specific.{t}.0" for t in "abc"}
    module = loaded(MMoENetwork(linears(4), gates, heads), "mmoe/", names)
    for task, values in module(inputs).items():
        torch.testing.assert_close(values, wanted[task], rtol=1e-9, atol=1e-12)


def test_cgc_golden() -> None:
    inputs, wanted, heads = golden("cgc")
    counts = {"a": 1, "b": 2, "c": 1}
    gates = nn.ModuleDict({name: Gate(6, 2 + count).double() for name, count in counts.items()})
    own = {name: linears(count) for name, count in counts.items()}
    names = {"shared.": "experts_shared.", "own.": "experts_specific."}
    names |= {f"gates.{t}.linear": f"gate_specific.{t}.0" for t in "abc"}
    module = loaded(CGCNetwork(linears(2), own, gates, heads), "cgc/", names)
    for task, values in module(inputs).items():
        torch.testing.assert_close(values, wanted[task], rtol=1e-9, atol=1e-12)


def test_dselect_k_golden() -> None:
    inputs, wanted, heads = golden("dselect_k")
    gates = nn.ModuleDict({name: Selectors(6, 4, 2, 1.0).double() for name in "abc"})
    names = {"experts.": "experts_shared."} | {f"gates.{t}.code": f"_z_logits.{t}" for t in "abc"}
    names |= {f"gates.{t}.weight": f"_w_logits.{t}" for t in "abc"}
    module = loaded(DSelectKNetwork(linears(4), gates, heads, entropy_weight=0.0), "dselect_k/", names)
    for task, values in module(inputs).items():
        torch.testing.assert_close(values, wanted[task], rtol=1e-9, atol=1e-12)


def test_stitches_mix_the_tasks_after_each_stage() -> None:
    module = network(CrossStitch(diagonal=0.8)).eval()
    rows = [row for stage in module.stitches for row in stage.values()]
    assert [tuple(row.shape) for row in rows] == [(3, 1)] * 6
    torch.testing.assert_close(torch.stack([row.sum() for row in rows]), torch.ones(6))
    hidden = [images().flatten(1)] * 3
    for index in range(2):
        stages = [backbone.stages[index](each) for backbone, each in zip(module.backbones, hidden, strict=True)]
        hidden = [sum((0.8 if s == t else 0.1) * stages[s] for s in range(3)) for t in range(3)]
    for task, features in zip(TASKS, hidden, strict=True):
        torch.testing.assert_close(module(images())[task.name], module.heads[task.name](features))


def test_stitches_of_one_are_separate_networks() -> None:
    module = network(CrossStitch(diagonal=1.0, per_channel=True), "cnn").eval()
    for backbone, task in zip(module.backbones, TASKS, strict=True):
        torch.testing.assert_close(module(images())[task.name], module.heads[task.name](backbone(images())))


@pytest.mark.parametrize(("backbone", "sizes"), [("mlp", [8, 6]), ("cnn", [4, 6]), ("vit", [8, 8])])
def test_stitches_of_channels_are_of_the_axis_that_stages_mix(backbone: str, sizes: list[int]) -> None:
    module = network(CrossStitch(per_channel=True), backbone).eval()
    assert [tuple(stage["a"].shape) for stage in module.stitches] == [(3, size) for size in sizes]


def test_a_stitch_weighs_each_channel() -> None:
    row_TC = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    images = torch.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 2, 2)  # (T, N, C, height, width)
    patches = torch.arange(2 * 3 * 5 * 2.0).reshape(2, 3, 5, 2)  # (T, N, patches, C)
    for channel in range(2):
        first, second = row_TC[:, channel].tolist()
        found = stitched(row_TC, images)[:, channel]
        torch.testing.assert_close(found, first * images[0, :, channel] + second * images[1, :, channel])
        found = stitched(row_TC, patches)[..., channel]
        torch.testing.assert_close(found, first * patches[0, ..., channel] + second * patches[1, ..., channel])


def test_one_expert_is_hard_sharing() -> None:
    module = network(MMoE(num_experts=1)).eval()
    for task in TASKS:
        features = module.experts[0](images())
        torch.testing.assert_close(module(images())[task.name], module.heads[task.name](features))


def test_ple_with_open_gates_goes_through_one_expert() -> None:
    module = network(PLE(num_shared=1)).eval()
    with torch.no_grad():
        for level in module.levels:
            for gate in level.gates.values():
                gate.linear.weight.zero_()
                gate.linear.bias.copy_(torch.tensor([-1e4, 1e4]))  # its own expert alone
    hidden = images().flatten(1)
    for level in module.levels:
        hidden = level.own["b"][0](hidden)
    torch.testing.assert_close(module(images())["b"], module.heads["b"](hidden))
    assert module.levels[0].shared_gate is not None and module.levels[1].shared_gate is None


def test_smoothstep_is_a_cubic_between_exact_ends() -> None:
    values = torch.linspace(-2, 2, 41, dtype=torch.float64)
    found = smoothstep(values, 2.0)
    inside = values.abs() < 1
    expected = torch.where(values < 0, torch.zeros_like(values), torch.ones_like(values))
    cubic = -2 / 8 * values**3 + 3 / 4 * values + 0.5
    torch.testing.assert_close(found, torch.where(inside, cubic, expected))


@pytest.mark.parametrize("experts", [2, 3, 4, 5, 8])
def test_selectors_with_exact_bits_pick_k_experts(experts: int) -> None:
    gate = Selectors(6, experts, 2, 1.0)
    bits = math.ceil(math.log2(experts))
    codes = [1, experts - 1]
    with torch.no_grad():
        gate.code.weight.zero_()
        values = [1.0 if code >> bit & 1 else -1.0 for code in codes for bit in range(bits - 1, -1, -1)]
        gate.code.bias.copy_(torch.tensor(values))
        gate.weight.weight.zero_()
        gate.weight.bias.copy_(torch.tensor([0.0, math.log(3.0)]))
    shares, penalty = gate(torch.randn(4, 6))
    expected = torch.zeros(experts)
    expected[codes[0]] += 0.25
    expected[codes[1]] += 0.75
    torch.testing.assert_close(shares, expected.expand(4, -1))
    # 1 / mass of two selectors
    assert float(penalty.detach()) == pytest.approx(0.0 if experts in (2, 4, 8) else 2.0, abs=1e-5)
    (shares.square().sum() + penalty).backward()
    assert all(bool(each.grad.isfinite().all()) for each in gate.parameters() if each.grad is not None)


def test_penalties_are_of_training_and_given_once() -> None:
    module = network(DSelectK(num_experts=3, entropy_weight=0.5))
    module.train()(images())
    found = module.penalties()
    assert list(found) == ["a", "b", "c"] and all(float(value.detach()) > 0 for value in found.values())
    assert module.penalties() == {}
    module.eval()(images())
    assert module.penalties() == {}


def test_attention_sees_what_the_task_took_before() -> None:
    module = network(MTAN(reduction=2), "cnn").eval()
    first, second = module.attention["a"]
    assert first.mask[0].in_channels == 1 and second.mask[0].in_channels == 8
    assert second.mask[0].out_channels == 3 and second.mask[2].out_channels == 6
    with torch.no_grad():  # a mask of 1 and an identity: the shared features themselves
        for attention in module.attention["a"]:
            attention.mask[2].weight.zero_()
            attention.mask[2].bias.fill_(1e4)
            attention.take[0].weight.copy_(torch.eye(len(attention.take[0].weight))[..., None, None])
            attention.take[0].bias.zero_()
    torch.testing.assert_close(module(images())["a"], module.heads["a"](module.backbone(images())))


def test_shapes_leave_the_backbone_as_it_was() -> None:
    module = BACKBONES["resnet"](input_shape=SHAPE, tasks=TASKS).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert shapes(module.backbone, SHAPE) == [(4, 8, 8), (4, 8, 8), (6, 4, 4)]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(each.training for each in module.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossStitch(diagonal=1.5), r"`diagonal` should be in \[0, 1\]"),
        (lambda: MMoE(num_experts=0), "`num_experts` should be >= 1"),
        (lambda: MMoE(gate_on="output"), "`gate_on` should be input or stem"),
        (lambda: CGC(num_own=0), "`num_own` should be >= 1"),
        (lambda: PLE(num_shared=0), "`num_shared` should be >= 1"),
        (lambda: DSelectK(num_selected=5), r"`num_selected` should be in 1..num_experts"),
        (lambda: DSelectK(gamma=0.0), "`gamma` should be > 0"),
        (lambda: DSelectK(entropy_weight=-1.0), "`entropy_weight` should be >= 0"),
        (lambda: MTAN(reduction=0), "`reduction` should be >= 1"),
    ],
)
def test_bad_input_is_refused(make, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        make()
