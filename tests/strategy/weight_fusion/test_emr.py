from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfuse.evaluation.cost import num_parameters
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import EMRMerging, HeadMismatchError, merge
from transfuse.strategy.weight_fusion.emr import own_mask, rescaler, unify
from transfuse.types import HyperparameterError, IncompatibleStrategyError, NeedsContextError, Task

TASKS = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b", "c")]


def per_task(toys, batch_norm: bool = False):
    """Development data, the shared start, and one model a task."""
    data = toys.development(TASKS)
    start = toys.network(0, TASKS, batch_norm)
    members = []
    for index, task in enumerate(TASKS):
        member = toys.network(5 + index, [task], batch_norm)
        member.backbone.load_state_dict(start.backbone.state_dict())
        members.append(toys.train(member, data.train, seed=index))
    return data, start, members


def test_golden_election_masks_rescalers_and_models(golden: Path) -> None:
    inputs, expected = load_file(golden / "task_vectors_f64.safetensors"), load_file(golden / "emr_f64.safetensors")
    names = [key.removeprefix("base/") for key in inputs if key.startswith("base/")]
    deltas = [[inputs[f"task{task}/{name}"] - inputs[f"base/{name}"] for name in names] for task in (1, 2, 3)]
    stacked = [torch.stack(tensors) for tensors in zip(*deltas, strict=True)]
    unified = [unify(tensor.reshape(3, -1)).view(tensor.shape[1:]) for tensor in stacked]
    for name, value in zip(names, unified, strict=True):
        torch.testing.assert_close(value, expected[f"unified/{name}"], rtol=0, atol=1e-12)
    for index, own in enumerate(deltas):
        scale = rescaler(own, unified, count="tensors")
        assert scale == pytest.approx(expected["rescalers"][index].item(), rel=1e-6)
        for name, delta, value in zip(names, own, unified, strict=True):
            mask = own_mask(delta, value)
            assert torch.equal(mask, expected[f"mask/task{index + 1}/{name}"].bool())
            rebuilt = inputs[f"base/{name}"] + scale * mask * value
            torch.testing.assert_close(rebuilt, expected[f"model/task{index + 1}/{name}"], rtol=0, atol=1e-6)


def test_rescaled_vectors_have_the_mass_of_their_own() -> None:
    stream = torch.Generator().manual_seed(0)
    deltas = [[torch.randn(size, generator=stream) for size in (50, 3, 0)] for _ in range(3)]
    unified = [unify(torch.stack(tensors)) for tensors in zip(*deltas, strict=True)]
    for own in deltas:
        scale = rescaler(own, unified)
        masked = sum((own_mask(d, u) * u).abs().sum().double() for d, u in zip(own, unified, strict=True))
        assert scale * masked == pytest.approx(float(sum(d.abs().sum().double() for d in own)), rel=1e-6)
    assert rescaler([torch.zeros(4)], [torch.ones(4)]) == 1.0


def test_each_task_is_answered_by_its_own_rebuilt_weights(toys) -> None:
    data, start, members = per_task(toys)
    fused = EMRMerging().apply(toys.context(members, data, start))
    assert fused.network is not None
    outputs = predict(fused.network, data.validation.inputs)
    keys = [f"backbone.{key}" for key in start.backbone.state_dict()]
    base = {key: start.state_dict()[key].double() for key in keys}
    deltas = [{key: member.state_dict()[key].double() - base[key] for key in keys} for member in members]
    total = {key: sum(delta[key] for delta in deltas) for key in keys}
    sign = {key: torch.where(total[key] >= 0, 1.0, -1.0) for key in keys}
    agreed = {key: torch.stack([(delta[key] * sign[key]).clamp_min(0) for delta in deltas]) for key in keys}
    unified = {key: sign[key] * agreed[key].amax(0) for key in keys}
    for task, delta, member in zip(TASKS, deltas, members, strict=True):
        masked = {key: unified[key] * (delta[key] * unified[key] > 0) for key in keys}
        scale = sum(delta[key].abs().sum() for key in keys) / sum(value.abs().sum() for value in masked.values())
        rebuilt = {key: (base[key] + scale * masked[key]).float() for key in keys}
        member.load_state_dict({**member.state_dict(), **rebuilt})
        expected = predict(member, data.validation.inputs)[task.name]
        torch.testing.assert_close(outputs[task.name], expected, rtol=1e-4, atol=1e-5)
    assert list(outputs) == ["a", "b", "c"] == list(fused.validation)
    assert fused.members == (0, 1, 2) and fused.looks == 0 and fused.fit == {} and fused.weights is None
    assert fused.diagnostics["needs"] == "task id at inference" and fused.diagnostics["fused"] == "backbone"
    assert len(fused.diagnostics["rescalers"]) == 3 and all(0 < share < 1 for share in fused.diagnostics["kept_share"])


def test_the_cost_counts_one_set_of_weights_and_a_bit_a_task(toys) -> None:
    data, start, members = per_task(toys)
    network = EMRMerging().apply(toys.context(members, data, start)).network
    assert network is not None
    fused = sum(parameter.numel() for parameter in start.backbone.parameters())
    heads = sum(parameter.numel() for member in members for parameter in member.heads.parameters())
    assert num_parameters(network) == heads + fused + 3 * -(-fused // 32)


def test_a_model_whose_task_vector_is_alone_comes_back(toys) -> None:
    data, start, members = per_task(toys)
    for member in members[1:]:
        member.backbone.load_state_dict(start.backbone.state_dict())
    fused = EMRMerging().apply(toys.context(members, data, start))
    assert fused.network is not None
    outputs = predict(fused.network, data.validation.inputs)
    for task, member in zip(TASKS, members, strict=True):
        expected = predict(member, data.validation.inputs)[task.name]
        torch.testing.assert_close(outputs[task.name], expected, rtol=1e-4, atol=1e-5)
    assert fused.diagnostics["kept_share"][1:] == [0.0, 0.0]


@pytest.mark.parametrize("mode", ["reestimate", "average", "keep"])
def test_running_statistics_belong_to_each_task(toys, mode: str) -> None:
    data, start, members = per_task(toys, batch_norm=True)
    fused = EMRMerging(batch_norm=mode).apply(toys.context(members, data, start))  # type: ignore[arg-type]
    assert fused.network is not None and fused.diagnostics["batch_norm"] == mode
    key = "backbone.stages.0.1.running_mean"
    found = torch.stack([fused.network.weights(owner)[key] for owner in range(3)])
    if mode == "reestimate":
        assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
        weight, bias = (fused.network.weights(1)[f"backbone.stages.0.0.{name}"] for name in ("weight", "bias"))
        measured = (data.train.inputs.double() @ weight.double().T + bias).mean(0)
        np.testing.assert_allclose(found[1].numpy(), measured.detach().numpy(), atol=0.1)
    else:
        own = torch.stack([member.state_dict()[key] for member in members]).mean(0)
        expected = start.state_dict()[key] if mode == "keep" else own
        torch.testing.assert_close(found, expected.expand(3, -1), rtol=1e-5, atol=1e-6)


def test_skipped_tensors_are_the_bases_and_inputs_are_not_changed(toys, digest) -> None:
    data, start, members = per_task(toys)
    before = [digest(network.state_dict()) for network in (start, *members)]
    fused = EMRMerging(skip=("*.bias",)).apply(toys.context(members, data, start))
    assert fused.network is not None
    assert set(fused.network.weights(0)) == {"backbone.stages.0.0.weight"}
    key = "backbone.stages.0.0.bias"
    assert torch.equal(fused.network.network.state_dict()[key], start.state_dict()[key])
    with torch.no_grad():
        for value in fused.network.state_dict().values():
            value.zero_()
    assert [digest(network.state_dict()) for network in (start, *members)] == before


def test_where_it_does_not_fit_it_says_so(toys) -> None:
    single = toys.development()
    start, finetuned = toys.finetuned(2, single)
    pool = toys.context(finetuned, single, start).base_models.description
    with pytest.raises(IncompatibleStrategyError, match="emr is for multi_task problems"):
        EMRMerging().check(single, pool)
    data, start, members = per_task(toys)
    EMRMerging().check(data, toys.context(members, data, start).base_models.description)
    with pytest.raises(HeadMismatchError, match="cannot fuse heads of different tasks"):
        EMRMerging(fuse="all").check(data, toys.context(members, data, start).base_models.description)
    shared = [toys.network(seed, TASKS) for seed in range(3)]
    with pytest.raises(IncompatibleStrategyError, match="one model a task. Found models of the same tasks"):
        EMRMerging().check(data, toys.context(shared, data, start).base_models.description)
    with pytest.raises(NeedsContextError, match="which one state dict cannot hold"):
        merge([start.state_dict()] * 2, method="emr", base=start.state_dict())
    with pytest.raises(HyperparameterError, match="`count` should be elements or tensors. Found `count = all`"):
        EMRMerging(count="all")  # type: ignore[arg-type]
