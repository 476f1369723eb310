from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.func import functional_call

from tests.toy import CPU
from transfuse.models.predict import predict
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.weight_fusion import LearnedSoup, UniformSoup, merge
from transfuse.training.fit import Fit
from transfuse.types import Development, HyperparameterError, NeedsContextError, NonFiniteError, Split, Task


def nll(network: nn.Module, split: Split) -> float:
    return float(nn.functional.cross_entropy(predict(network, split.inputs)["y"], split.targets["y"]))


def trained(toys, members, data: Development):
    return replace(toys.context(members, data), fit=Fit(CPU))


def uneven(toys, data: Development) -> list[nn.Module]:
    """Two good members and one that was led astray."""
    _, members = toys.finetuned(3, data)
    with torch.no_grad():
        for parameter in members[2].parameters():
            parameter.mul_(-1.5)
    return members


@pytest.mark.parametrize("granularity", ["model", "layer"])
@pytest.mark.parametrize("constraint", ["simplex", "none"])
def test_never_worse_in_sample_than_the_uniform_soup(toys, granularity: str, constraint: str) -> None:
    data = toys.development()
    members = uneven(toys, data)
    fused = LearnedSoup(granularity=granularity, constraint=constraint).apply(trained(toys, members, data))
    uniform = UniformSoup().apply(toys.context(members, data))
    assert fused.diagnostics["uniform_loss"] == pytest.approx(nll(uniform.network, data.validation), rel=1e-5)
    assert fused.fit["y"]["nll"] == pytest.approx(nll(fused.network, data.validation), rel=1e-5)
    assert fused.fit["y"]["nll"] < fused.diagnostics["uniform_loss"] - 0.01
    coefficients_LK = np.array(list(fused.diagnostics["coefficients"].values()))
    assert coefficients_LK.shape == (4, 3)
    if constraint == "simplex":
        assert (coefficients_LK > 0).all()
        np.testing.assert_allclose(coefficients_LK.sum(1), 1.0, rtol=1e-6)
    if granularity == "model":
        assert (coefficients_LK == coefficients_LK[0]).all()
    else:
        assert np.ptp(coefficients_LK, axis=0).max() > 1e-3
    assert fused.weights["y"] == pytest.approx(coefficients_LK.mean(0).tolist())
    assert fused.weights["y"][2] < 0.3


def test_the_network_is_the_weighted_sum(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    fused = LearnedSoup().apply(trained(toys, members, data))
    for key, value in fused.network.state_dict().items():
        coefficients_K = fused.diagnostics["coefficients"][key]
        expected = sum(c * m.state_dict()[key].double() for c, m in zip(coefficients_K, members, strict=True))
        torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-6)


def test_reaches_the_optimum_of_an_independent_solver(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    states = [member.state_dict() for member in members]

    def loss(logits_K: np.ndarray) -> float:
        weights_K = np.exp(logits_K - logits_K.max())
        weights_K /= weights_K.sum()
        state = {key: sum(w * s[key] for w, s in zip(weights_K.tolist(), states, strict=True)) for key in states[0]}
        outputs = functional_call(members[0], state, (data.validation.inputs,))["y"]
        return float(nn.functional.cross_entropy(outputs, data.validation.targets["y"]))

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"maxiter": 400}).fun
    method = LearnedSoup(granularity="model", epochs=60, temperature="none")
    context = replace(trained(toys, members, data), cross_fit=2)
    assert method.apply(context).fit["y"]["nll"] == pytest.approx(best, rel=0.01)


def test_scores_are_cross_fitted(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    context = replace(trained(toys, members, data), cross_fit=2)
    method = LearnedSoup(granularity="model")
    fused = method.apply(context)
    labels = data.validation.targets["y"]
    folds_N = folds(labels, len(labels), 2, context.generator("cross_fit"))
    total = 0.0
    for fold in range(2):
        rest = replace(data, validation=data.validation.select(folds_N != fold))
        part = method.apply(replace(trained(toys, members, rest), cross_fit=2))
        held = data.validation.select(folds_N == fold)
        total += len(held) * nll(part.network, held)
    assert fused.validation["y"]["nll"] == pytest.approx(total / len(labels), rel=1e-5)
    assert fused.looks == 7 and fused.steps == 5 * 4 and len(fused.history) == 5


def test_the_order_of_models_does_not_matter(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    order = (2, 0, 1)
    first = LearnedSoup().apply(replace(trained(toys, members, data), cross_fit=2))
    other = LearnedSoup().apply(replace(trained(toys, [members[i] for i in order], data), cross_fit=2))
    assert other.weights["y"] == pytest.approx([first.weights["y"][i] for i in order], abs=1e-3)
    assert other.fit["y"]["nll"] == pytest.approx(first.fit["y"]["nll"], rel=1e-3)


def test_equal_models_keep_the_uniform_soup(toys) -> None:
    data = toys.development()
    network = toys.train(toys.network(0), data.train, seed=0)
    fused = LearnedSoup(epochs=1).apply(replace(trained(toys, [network] * 2, data), cross_fit=2))
    assert fused.weights["y"] == pytest.approx([0.5, 0.5])
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[key], rtol=1e-6, atol=0)


def test_a_step_too_long_keeps_the_uniform_soup(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data)
    method = LearnedSoup(constraint="none", granularity="model", lr=50.0, epochs=1, temperature="none")
    fused = method.apply(replace(trained(toys, members, data), cross_fit=2))
    uniform = UniformSoup().apply(toys.context(members, data))
    assert fused.diagnostics["verdict"] == "no learned coefficients beat the uniform soup"
    assert fused.diagnostics["loss"] == fused.diagnostics["uniform_loss"]
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, uniform.network.state_dict()[key], rtol=1e-6, atol=1e-7)


def test_temperature_is_learned_for_logits_alone(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    context = replace(trained(toys, members, data), cross_fit=2)
    assert LearnedSoup().apply(context).diagnostics["temperature"]["y"] != pytest.approx(1.0, abs=1e-3)
    assert LearnedSoup(temperature="none").apply(context).diagnostics["temperature"] == {}


def test_batch_norm_is_measured_anew(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data, batch_norm=True)
    odd = replace(data, validation=data.validation.select(torch.arange(49)))  # 48 + 1: a batch of one is left out
    context = replace(trained(toys, members, odd), cross_fit=2)
    fused = LearnedSoup(epochs=2).apply(context)
    assert fused.diagnostics["batch_norm"] == "reestimate"
    assert fused.fit["y"]["nll"] <= fused.diagnostics["uniform_loss"]
    assert not any("running" in name for name in fused.diagnostics["coefficients"])
    assert LearnedSoup(epochs=1, batch_norm="average").apply(context).diagnostics["batch_norm"] == "average"


def test_only_what_is_fused_has_coefficients(toys) -> None:
    data = toys.development()
    members = uneven(toys, data)
    context = replace(trained(toys, members, data), cross_fit=2)
    fused = LearnedSoup(skip=("heads.*",), epochs=1).apply(context)
    assert set(fused.diagnostics["coefficients"]) == {"backbone.stages.0.0.weight", "backbone.stages.0.0.bias"}
    assert torch.equal(fused.network.heads["y"].linear.weight, members[0].heads["y"].linear.weight)


def test_two_tasks_sum_their_losses(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    _, members = toys.finetuned(2, data)
    fused = LearnedSoup(epochs=2).apply(replace(trained(toys, members, data), cross_fit=2))
    assert set(fused.fit) == set(fused.validation) == {"a", "b"}
    total = sum(entry["nll"] for entry in fused.fit.values())
    assert fused.diagnostics["loss"] == pytest.approx(total, rel=1e-5)
    assert set(fused.diagnostics["temperature"]) == {"a", "b"}


def test_divergence_ends_at_its_step(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data)
    context = trained(toys, members, data)
    with pytest.raises(
        NonFiniteError, match=r"learned_soup: the loss is (nan|inf) at step [1-9]\d*\. Coefficients of "
    ):
        LearnedSoup(constraint="none", lr=1e30, epochs=3).apply(context)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("granularity", "tensor", "model or layer"),
        ("constraint", "sum", "simplex or none"),
        ("temperature", "fixed", "learned or none"),
        ("lr", -1.0, "> 0 and finite"),
        ("epochs", 0, ">= 1"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object, rule: str) -> None:
    with pytest.raises(HyperparameterError, match=f"`{field}` should be {rule}. Found `{field} = {value}`"):
        LearnedSoup(**{field: value})


def test_merge_says_what_is_missing() -> None:
    with pytest.raises(NeedsContextError, match="weight_fusion/learned_soup needs the networks, data and a trainer"):
        merge([{"w": torch.zeros(1)}] * 2, method="learned_soup")
