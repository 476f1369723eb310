from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import UniformSoup, merge
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(("bits", "tolerance"), [("f64", 1e-12), ("f32", 5e-6)])
def test_golden_simple_average(golden: Path, bits: str, tolerance: float) -> None:
    inputs = load_file(golden / f"task_vectors_{bits}.safetensors")
    expected = load_file(golden / f"simple_average_{bits}.safetensors")
    states = [
        {key.removeprefix(f"task{task}/"): value for key, value in inputs.items() if key.startswith(f"task{task}/")}
        for task in (1, 2, 3)
    ]
    merged = UniformSoup().merged(states)
    assert {key.rpartition("/")[2] for key in expected} == set(merged)
    for key, value in expected.items():
        torch.testing.assert_close(merged[key.rpartition("/")[2]], value, rtol=tolerance, atol=tolerance)


def test_a_mean_between_two_bf16_values_rounds_to_even() -> None:
    ulp = 2.0**-7
    values = torch.tensor([0.5 + ulp / 2, 1.0 + ulp, 1.5], dtype=torch.bfloat16)
    assert values.double().mean() == 1.0 + ulp / 2  # half-way between 1 and 1 + ulp
    assert UniformSoup().merged([{"w": value} for value in values])["w"].item() == 1.0


def test_the_fused_network_is_the_mean_of_finetunes(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    context = toys.context(members, data)
    fused = UniformSoup().apply(context)
    assert fused.network is not None
    for key, value in fused.network.state_dict().items():
        expected = torch.stack([member.state_dict()[key].double() for member in members]).mean(0)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    outputs = predict(fused.network, data.validation.inputs)["y"]
    nll = nn.functional.cross_entropy(outputs, data.validation.targets["y"]).item()
    assert fused.validation["y"]["nll"] == pytest.approx(nll, rel=1e-5)
    assert nll < 1.5 * max(model.validation["y"]["nll"] for model in context.base_models)
    assert fused.members == (0, 1, 2) and fused.weights == {"y": [1 / 3, 1 / 3, 1 / 3]}
    assert fused.fit == {} and fused.looks == 0 and fused.steps == 0
    assert fused.diagnostics["batch_norm"] == "none" and fused.diagnostics["fused"] == "all"
    assert fused.diagnostics["fused_tensors"] == 4
    assert fused.diagnostics["fused_elements"] == sum(parameter.numel() for parameter in members[0].parameters())
    assert 0.5 < fused.diagnostics["mean_cosine"] < 1.0 and fused.diagnostics["verdict"] is None


def test_the_cosine_is_that_of_the_flat_vectors(toys) -> None:
    data = toys.development()
    networks = [toys.network(seed) for seed in range(3)]
    flat_KP = torch.stack(
        [nn.utils.parameters_to_vector(network.parameters()).detach().double() for network in networks]
    )
    unit_KP = flat_KP / flat_KP.norm(dim=1, keepdim=True)
    cosines = [float(unit_KP[first] @ unit_KP[second]) for first, second in ((0, 1), (0, 2), (1, 2))]
    fused = UniformSoup().apply(toys.context(networks, data))
    assert fused.diagnostics["mean_cosine"] == pytest.approx(sum(cosines) / 3, rel=1e-10)


def test_a_soup_of_opposites_says_why_it_is_bad(toys) -> None:
    data = toys.development()
    network = toys.train(toys.network(0), data.train, seed=0)
    mirrored = toys.network(0)
    order = torch.arange(7, -1, -1)  # the same function, units in another order
    state = dict(network.state_dict())
    for key in ("backbone.stages.0.0.weight", "backbone.stages.0.0.bias"):
        state[key] = state[key][order]
    state["heads.y.linear.weight"] = state["heads.y.linear.weight"][:, order]
    mirrored.load_state_dict(state)
    fused = UniformSoup().apply(toys.context([network, mirrored], data))
    nll = fused.validation["y"]["nll"]
    worst = nn.functional.cross_entropy(predict(network, data.validation.inputs)["y"], data.validation.targets["y"])
    cosine = fused.diagnostics["mean_cosine"]
    barrier = fused.diagnostics["barrier"]["largest"]
    assert nll > worst.item() and cosine < 0.2 and barrier > 0.1
    assert fused.diagnostics["verdict"] == (
        f"the soup is worse than its worst member (nll {nll:.2g} against {worst:.2g}): members do not share an "
        f"initialization (barrier {barrier:.2g} nats, mean cosine of weights {cosine:.2f}). "
        "Try align=weight_matching, base_models=finetuned or an output_fusion strategy."
    )


def test_a_soup_of_one_is_that_model(toys) -> None:
    data = toys.development()
    network = toys.train(toys.network(0, batch_norm=True), data.train, seed=0)
    fused = UniformSoup().apply(toys.context([network], data))
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key
    assert fused.diagnostics["mean_cosine"] is None and fused.diagnostics["batch_norm"] == "none"


def test_the_fused_network_owns_its_weights(toys, digest: Callable[[Mapping[str, Tensor]], str]) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data)
    before = [digest(member.state_dict()) for member in members]
    fused = UniformSoup().apply(toys.context(members, data))
    with torch.no_grad():
        for value in fused.network.state_dict().values():
            value.zero_()
    assert [digest(member.state_dict()) for member in members] == before


def test_applying_twice_gives_the_same_bits(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data, batch_norm=True)
    first, second = (UniformSoup().apply(toys.context(members, data)) for _ in range(2))
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[key])
    assert first.validation == second.validation


def test_one_head_a_member_stays_with_its_task(toys) -> None:
    from transfuse.types import Task

    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    start = toys.network(0, tasks)
    members = []
    for task in tasks:
        member = toys.network(5, [task])
        member.backbone.load_state_dict(start.backbone.state_dict())
        members.append(toys.train(member, data.train, seed=1))
    fused = UniformSoup().apply(toys.context(members, data, start))
    for index, task in enumerate(tasks):
        for key, value in members[index].heads[task.name].state_dict().items():
            assert torch.equal(fused.network.state_dict()[f"heads.{task.name}.{key}"], value)
    for key, value in fused.network.backbone.state_dict().items():
        expected = (members[0].backbone.state_dict()[key] + members[1].backbone.state_dict()[key]) / 2
        torch.testing.assert_close(value, expected)
    assert set(fused.validation) == {"a", "b"} and set(predict(fused.network, data.validation.inputs)) == {"a", "b"}
    assert fused.diagnostics["fused"] == "backbone" and fused.diagnostics["fused_tensors"] == 2


def test_members_that_hold_all_heads_are_fused_whole(toys) -> None:
    from transfuse.types import Task

    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    _, members = toys.finetuned(2, data)
    fused = UniformSoup().apply(toys.context(members, data))
    key = "heads.b.linear.weight"
    expected = (members[0].state_dict()[key] + members[1].state_dict()[key]) / 2
    torch.testing.assert_close(fused.network.state_dict()[key], expected)
    assert fused.diagnostics["fused"] == "all"


def test_merge_equals_apply(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    merged = merge([member.state_dict() for member in members], method="uniform_soup")
    fused = UniformSoup().apply(toys.context(members, data)).network.state_dict()
    assert all(torch.equal(value, fused[key]) for key, value in merged.items())


def test_batch_norm_mode_is_checked() -> None:
    with pytest.raises(HyperparameterError, match="`batch_norm` should be one of reestimate, average, keep"):
        UniformSoup(batch_norm="none")  # type: ignore[arg-type]
