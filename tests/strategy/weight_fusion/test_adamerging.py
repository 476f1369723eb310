from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.toy import CPU, VALUE
from transfuse.base_models.model import BaseModel, BaseModels, Description, MemberDescription
from transfuse.models.architecture import Architecture
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import AdaMerging, TaskArithmetic, merge
from transfuse.training.fit import Fit
from transfuse.types import (
    Development,
    HyperparameterError,
    IncompatibleStrategyError,
    MissingBaseError,
    NeedsContextError,
    NonFiniteError,
    Split,
    SplitName,
    Task,
)

DIGIT = Task(name="y", kind="classification", outputs=10)


class Published(nn.Module):
    """The network of the golden values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.ln = nn.Linear(12, 16), nn.LayerNorm(16)
        self.fc2, self.head = nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"y": self.head(torch.relu(self.fc2(torch.relu(self.ln(self.fc1(inputs))))))}


class PublishedModels(BaseModels):
    def __init__(self, values: dict[str, Tensor]) -> None:
        self.values = values
        members = tuple(self._describe(name) for name in ("task1", "task2", "task3"))
        self.description = Description(recipe="published", members=members, has_base=True)

    def _describe(self, name: str) -> MemberDescription:
        return MemberDescription(name=name, key=name, architecture="published", layout="{}", tasks=("y",))

    def _model(self, name: str) -> BaseModel:
        prefix = f"{name}/"
        return BaseModel(
            description=self._describe(name),
            architecture=Architecture(name="published", recipe={}, make=Published),
            state={key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)},
            build=Published,
            validation={},
            seconds=0.0,
            trained_here=False,
        )

    def __getitem__(self, index: int) -> BaseModel:
        return self._model(self.description.members[index].name)

    @property
    def base(self) -> BaseModel:
        return self._model("base")

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        raise AssertionError("not needed")

    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        raise AssertionError("not needed")

    def fold_pools(self, folds_N: Tensor) -> tuple[BaseModels, ...]:
        raise AssertionError("not needed")

    def used(self) -> tuple[BaseModel, ...]:
        return tuple(self)


def published(values: dict[str, Tensor]) -> Development:
    """The three tasks' inputs in one split: the mean entropy over all is a third of the sum over tasks."""
    inputs = torch.cat([values[f"x/task{index}"] for index in (1, 2, 3)])
    labels = torch.cat([values[f"y/task{index}"] for index in (1, 2, 3)])
    split = Split(inputs=inputs, targets={"y": labels}, ids=torch.arange(len(inputs)))
    return Development(name="published", tasks=(DIGIT,), train=split, validation=split, fingerprint="0")


@pytest.mark.parametrize(("granularity", "file"), [("layer", "layerwise"), ("task", "taskwise")])
def test_equals_the_published_code(toys, golden: Path, granularity: str, file: str) -> None:
    values = load_file(golden / "task_vectors_f32.safetensors")
    expected = load_file(golden / f"adamerging_{file}_50.safetensors")
    data = published(values)
    context = replace(toys.context([], data), base_models=PublishedModels(values), fit=Fit(CPU))
    fused = AdaMerging(granularity=granularity, lr=1e-2, steps=50, batch=192).apply(context)
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=0, atol=1e-4)
    names = [name for name, _ in Published().named_parameters()]
    found_LK = np.array([fused.diagnostics["coefficients"][name] for name in names])
    weights = expected["merge_weight"].reshape(3, -1).expand(3, len(names)).T.numpy()
    np.testing.assert_allclose(found_LK, weights, rtol=0, atol=1e-4)
    entropies = 3 * np.array(fused.diagnostics["entropy"])
    np.testing.assert_allclose(entropies, expected["entropy_sum_per_step"].numpy(), rtol=1e-5)
    assert fused.steps == 50 and fused.fit == {} and fused.looks == 0


def test_no_step_is_task_arithmetic(toys, golden: Path) -> None:
    values = load_file(golden / "task_vectors_f64.safetensors")
    expected = load_file(golden / "adamerging_0.safetensors")
    data = published(load_file(golden / "task_vectors_f32.safetensors"))
    models = PublishedModels({key: value.float() for key, value in values.items()})
    fused = AdaMerging(steps=0).apply(replace(toys.context([], data), base_models=models))
    assert models.base is not None
    added = TaskArithmetic(scale=0.3).merged([member.state for member in models], models.base.state)
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, added[key])
        torch.testing.assert_close(value.double(), expected[key], rtol=0, atol=1e-6)
    assert fused.weights == {"y": pytest.approx([0.3] * 3)} and fused.history == ()


def test_entropy_falls_and_no_label_is_read(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    unlabelled = replace(data, train=replace(data.train, targets={}))
    method = AdaMerging(steps=60, lr=0.01, init=0.1)
    found = []
    for problem in (data, unlabelled):
        context = replace(toys.context(members, data, start), development=problem, fit=Fit(CPU))
        found.append(method.apply(context))
    for key, value in found[0].network.state_dict().items():
        assert torch.equal(value, found[1].network.state_dict()[key])

    def entropy(network: nn.Module) -> float:
        logits_NC = predict(network, data.train.inputs)["y"].double().numpy()
        exp_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
        p_NC = exp_NC / exp_NC.sum(1, keepdims=True)
        return float(-(p_NC * np.log(p_NC)).sum(1).mean())

    untrained = replace(method, steps=0).apply(toys.context(members, data, start))
    assert entropy(found[0].network) < entropy(untrained.network) - 0.01


def test_the_order_of_models_does_not_matter(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    method = AdaMerging(steps=20, lr=0.01)
    first = method.apply(replace(toys.context(members, data, start), fit=Fit(CPU)))
    other = method.apply(replace(toys.context([members[i] for i in (2, 0, 1)], data, start), fit=Fit(CPU)))
    for key, value in first.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[key], value, rtol=1e-3, atol=1e-4)
    assert other.weights["y"] == pytest.approx([first.weights["y"][i] for i in (2, 0, 1)], abs=1e-4)


def test_each_task_keeps_its_head(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    start = toys.train(toys.network(0, tasks), data.train, seed=0, steps=10)
    members = []
    for task in tasks:
        member = toys.network(5, [task])
        member.backbone.load_state_dict(start.backbone.state_dict())
        members.append(toys.train(member, data.train, seed=1))
    fused = AdaMerging(steps=20, lr=0.01).apply(replace(toys.context(members, data, start), fit=Fit(CPU)))
    assert set(fused.validation) == {"a", "b"}
    assert set(fused.diagnostics["coefficients"]) == {f"backbone.{n}" for n, _ in start.backbone.named_parameters()}
    for index, name in enumerate("ab"):
        assert torch.equal(fused.network.heads[name].linear.weight, members[index].heads[name].linear.weight)
    key = "backbone.stages.0.0.weight"
    origin = start.state_dict()[key]
    coefficients = fused.diagnostics["coefficients"][key]
    assert coefficients != pytest.approx([0.3, 0.3], abs=1e-3)
    expected = origin + sum(c * (m.state_dict()[key] - origin) for c, m in zip(coefficients, members, strict=True))
    torch.testing.assert_close(fused.network.state_dict()[key], expected, rtol=1e-5, atol=1e-6)


def test_equal_models_give_the_base_bit_for_bit(toys) -> None:
    data = toys.development()
    start = toys.network(0)
    fused = AdaMerging(steps=3).apply(replace(toys.context([start] * 2, data, start), fit=Fit(CPU)))
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, start.state_dict()[key])


def test_batch_norm_is_measured_anew(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data, batch_norm=True)
    context = replace(toys.context(members, data, start), fit=Fit(CPU))
    fused = AdaMerging(steps=5, init=0.5).apply(context)
    assert fused.diagnostics["batch_norm"] == "reestimate"
    state = fused.network.state_dict()
    hidden = nn.functional.linear(
        data.train.inputs, state["backbone.stages.0.0.weight"], state["backbone.stages.0.0.bias"]
    )
    torch.testing.assert_close(state["backbone.stages.0.1.running_mean"], hidden.mean(0), rtol=0.1, atol=0.1)
    kept = AdaMerging(steps=5, init=0.5, batch_norm="keep").apply(context)
    for name in ("running_mean", "running_var"):
        key = f"backbone.stages.0.1.{name}"
        assert torch.equal(kept.network.state_dict()[key], start.state_dict()[key])


def test_divergence_ends_at_its_step(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    broken = replace(data, train=replace(data.train, inputs=data.train.inputs * torch.inf))
    context = replace(toys.context(members, data, start), development=broken, fit=Fit(CPU))
    with pytest.raises(NonFiniteError, match=r"adamerging: the loss is nan at step 0\. .* tensors: 0\.3, 0\.3\. Try"):
        AdaMerging(steps=5).apply(context)


def test_what_does_not_fit_is_refused(toys) -> None:
    pool = toys.context([toys.network(0), toys.network(1)], toys.development()).base_models.description
    with pytest.raises(MissingBaseError, match="base_models=finetuned"):
        AdaMerging().check(toys.development(), pool)
    members = [replace(member, tasks=("value",)) for member in pool.members]
    values = Split(inputs=torch.zeros(4, 4), targets={"value": torch.zeros(4, 1)}, ids=torch.arange(4))
    data = Development(name="values", tasks=(VALUE,), train=values, validation=values, fingerprint="0")
    with pytest.raises(IncompatibleStrategyError, match="entropy of predicted probabilities. Found regression task"):
        AdaMerging().check(data, replace(pool, members=tuple(members), has_base=True))
    with pytest.raises(NeedsContextError, match="weight_fusion/adamerging needs the networks, data and a trainer"):
        merge([{"w": torch.zeros(1)}] * 2, base={"w": torch.zeros(1)}, method="adamerging")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("granularity", "row", "task or layer"),
        ("init", float("nan"), "finite"),
        ("lr", 0.0, "> 0 and finite"),
        ("steps", -1, ">= 0"),
        ("batch", 0, ">= 1"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object, rule: str) -> None:
    with pytest.raises(HyperparameterError, match=f"`{field}` should be {rule}. Found `{field} = {value}`"):
        AdaMerging(**{field: value})
