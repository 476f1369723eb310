from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn
from torch.func import functional_call

from transfuse.models import build_mlp
from transfuse.training import EntropyModule, Fit, Training
from transfuse.training.coefficients import prediction_entropy
from transfuse.training.mixture import WeightMixture
from transfuse.types import Split, Task

TASK = Task(name="y", kind="classification", outputs=3)


def networks() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [build_mlp(input_shape=(4,), tasks=(TASK,), widths=[5]).eval() for _ in range(3)]


def stacked(members: list[nn.Module]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([m.get_parameter(name) for m in members]) for name, _ in members[0].named_parameters()}


def test_entropy_equals_scipy() -> None:
    logits_NC = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 3
    found = prediction_entropy(TASK, logits_NC)
    assert float(found) == pytest.approx(entropy(logits_NC.softmax(1).numpy(), axis=1).mean(), rel=1e-5)
    p_NC = logits_NC.sigmoid().numpy()
    expected = entropy(np.stack([p_NC, 1 - p_NC]), axis=0).mean()
    labels = Task(name="y", kind="multilabel", outputs=4)
    assert float(prediction_entropy(labels, logits_NC)) == pytest.approx(expected, rel=1e-4)
    certain = torch.tensor([[200.0, -200.0, 0.0]])
    assert float(prediction_entropy(TASK, certain)) == 0.0
    assert float(prediction_entropy(labels, certain)) == pytest.approx(np.log(2) / 3)


def test_a_mixture_runs_the_mixed_weights() -> None:
    members = networks()
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    mixture = WeightMixture(members[0], stacked(members), {}, start=0.0, per_tensor=True, simplex=False)
    with torch.no_grad():
        mixture.raw.copy_(torch.rand(mixture.raw.shape, generator=torch.Generator().manual_seed(2)))
    state = {
        name: sum(c * m.get_parameter(name) for c, m in zip(row_K, members, strict=True))
        for name, row_K in mixture.by_name.items()
    }
    expected = functional_call(members[1], state, (inputs,))["y"]
    torch.testing.assert_close(mixture(inputs)["y"], expected)
    assert set(mixture.state_dict()) == {"raw"} and [name for name, _ in mixture.named_parameters()] == ["raw"]


def test_a_mixture_has_the_gradient_of_finite_differences() -> None:
    members = [network.double() for network in networks()]
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    base = {name: value[0].detach() for name, value in stacked(members).items()}
    values = {name: value - base[name] for name, value in stacked(members).items()}
    mixture = WeightMixture(
        members[0], values, base, start=0.3, per_tensor=True, simplex=True, temperatures=("y",)
    ).double()

    def loss(raw: torch.Tensor, log_temperature_T: torch.Tensor) -> torch.Tensor:
        outputs = functional_call(mixture, {"raw": raw, "log_temperature_T": log_temperature_T}, (inputs,))
        return prediction_entropy(TASK, outputs["y"])

    raw = torch.rand(3, 4, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (raw, torch.full((1,), 0.2).double().requires_grad_()))


def test_batch_statistics_leave_running_ones_alone() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    values = {name: torch.stack([value, value]) for name, value in network.named_parameters()}
    normed = nn.functional.batch_norm(network[0](inputs), None, None, network[1].weight, network[1].bias, training=True)
    mixture = WeightMixture(
        network, values, {}, start=0.5, per_tensor=False, simplex=False, batch_statistics=True
    ).eval()
    torch.testing.assert_close(mixture(inputs), normed)


def test_training_moves_only_coefficients(cpu: Fit) -> None:
    members = networks()
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    split = Split(inputs=inputs, targets={}, ids=torch.arange(40))
    settings = Training(epochs=None, steps=20, batch_size=16, lr=0.05, schedule="constant", keep="last")
    mixture = WeightMixture(members[0], stacked(members), {}, start=1 / 3, per_tensor=False, simplex=False)
    before = prediction_entropy(TASK, mixture(inputs)["y"]).detach()
    module = EntropyModule(mixture, (TASK,), settings)
    result = cpu(module, split, split, settings=settings, seed=0, name="entropy")
    learned = result.network
    assert isinstance(learned, WeightMixture) and learned.by_name.keys() == dict(members[0].named_parameters()).keys()
    assert prediction_entropy(TASK, learned(inputs)["y"]).detach() < before
    for name, value in stacked(members).items():
        assert torch.equal(learned.get_buffer(learned._places["values"][name]), value)
