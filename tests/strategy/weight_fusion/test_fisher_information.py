from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from transfuse.models import build_cnn, build_mlp, build_vit
from transfuse.strategy.weight_fusion.fisher_information import fisher_diagonal, score_factors
from transfuse.types import Split, Task

CLASSES = Task(name="y", kind="classification", outputs=3)
LABELS = Task(name="y", kind="multilabel", outputs=3)
VALUES = Task(name="y", kind="regression", outputs=3, location=(0.0, 0.0, 0.0), scale=(2.0, 1.0, 0.5))


@pytest.fixture(autouse=True)
def _same_networks() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Line(nn.Module):
    """One linear layer for a task."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        nn.init.normal_(self.linear.weight)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"y": self.linear(inputs)}


class Branching(nn.Module):
    """The same function, by a decision that vmap cannot take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self.network(inputs) if inputs.sum().item() > 1e9 else self.network(1.0 * inputs)
        return found


def split_of(num_examples: int, shape: tuple[int, ...], task: Task) -> Split:
    stream = torch.Generator().manual_seed(1)
    inputs = torch.randn(num_examples, *shape, generator=stream)
    labels = torch.randint(task.outputs, (num_examples,), generator=stream)
    values = torch.randn(num_examples, task.outputs, generator=stream)
    targets = {"classification": labels, "multilabel": (values > 0).float(), "regression": values}[task.kind]
    return Split(inputs=inputs, targets={"y": targets}, ids=torch.arange(num_examples))


def log_likelihood(task: Task, outputs_C: Tensor, target: Tensor) -> Tensor:
    if task.kind == "classification":
        return torch.distributions.Categorical(logits=outputs_C).log_prob(target)
    if task.kind == "multilabel":
        return torch.distributions.Bernoulli(logits=outputs_C).log_prob(target).sum()
    return torch.distributions.Normal(outputs_C, torch.tensor(task.scale)).log_prob(target).sum()


def squared_gradient(network: nn.Module, task: Task, example: Tensor, target: Tensor) -> list[Tensor]:
    likelihood = log_likelihood(task, network(example[None])["y"][0], target)
    return [gradient.square() for gradient in torch.autograd.grad(likelihood, list(network.parameters()))]


@pytest.mark.parametrize("task", [CLASSES, LABELS], ids=lambda task: task.kind)
def test_expected_is_the_sum_over_all_labels_weighted_by_their_probability(task: Task) -> None:
    network, split = build_mlp(input_shape=(4,), tasks=(task,), widths=[5]).eval(), split_of(6, (4,), task)
    total = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for example in split.inputs:
        outputs_C = network(example[None])["y"][0].detach()
        binary = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        for target in torch.arange(3) if task.kind == "classification" else binary:
            share = log_likelihood(task, outputs_C, target).exp() / len(split)
            total = [
                old + share * new
                for old, new in zip(total, squared_gradient(network, task, example, target), strict=True)
            ]
    found = fisher_diagonal(network, (task,), split)
    for (name, _), expected in zip(network.named_parameters(), total, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-9)


def test_closed_forms_of_a_linear_layer() -> None:
    network, squares_NI = Line(4, 3), split_of(50, (4,), CLASSES).inputs.square()
    outputs_NC = network(split_of(50, (4,), CLASSES).inputs)["y"].detach()
    softmax, sigmoid = outputs_NC.softmax(1), outputs_NC.sigmoid()
    # mean of Var(score_c) x_i^2
    for task, variance_NC in (
        (CLASSES, softmax * (1 - softmax)),
        (LABELS, sigmoid * (1 - sigmoid)),
        (VALUES, (1 / torch.tensor(VALUES.scale) ** 2).expand(50, 3)),
    ):
        found = fisher_diagonal(network, (task,), split_of(50, (4,), task))
        torch.testing.assert_close(found["linear.weight"], variance_NC.T @ squares_NI / 50, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found["linear.bias"], variance_NC.mean(0), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUES], ids=lambda task: task.kind)
def test_empirical_takes_the_labels_of_the_data(task: Task) -> None:
    network, split = Line(4, 3), split_of(20, (4,), task)
    rows = [
        squared_gradient(network, task, example, target)
        for example, target in zip(split.inputs, split.targets["y"], strict=True)
    ]
    found = fisher_diagonal(network, (task,), split, labels="empirical")
    torch.testing.assert_close(found["linear.weight"], torch.stack([row[0] for row in rows]).mean(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUES], ids=lambda task: task.kind)
def test_sampled_has_the_expected_as_its_mean(task: Task) -> None:
    network, one = Line(4, 3), split_of(2, (4,), task)
    count = 4000
    many = one.select(torch.arange(count) % 2)
    draw = fisher_diagonal(
        network, (task,), many, labels="sampled", generator=torch.Generator().manual_seed(5), batch_size=count
    )["linear.bias"]
    expected = fisher_diagonal(network, (task,), one)["linear.bias"]
    # the squares have a standard deviation below twice their largest value (chi-squared for regression)
    largest = {"classification": 1.0, "multilabel": 1.0, "regression": 2 * expected}[task.kind]
    assert bool(((draw - expected).abs() < 3 * largest / count**0.5).all())


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUES], ids=lambda task: task.kind)
def test_a_missing_label_says_nothing(task: Task) -> None:
    network, split = Line(4, 3), split_of(8, (4,), task)
    missing = -1 if task.kind == "classification" else torch.nan
    halved = replace(split, targets={"y": split.targets["y"].clone().index_fill_(0, torch.arange(4), missing)})
    found = fisher_diagonal(network, (task,), halved, labels="empirical")["linear.weight"]
    rest = fisher_diagonal(network, (task,), split.select(torch.arange(4, 8)), labels="empirical")["linear.weight"]
    torch.testing.assert_close(found, rest / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("labels", ["expected", "sampled", "empirical"])
def test_the_batch_size_does_not_matter(labels) -> None:
    network, split = build_mlp(input_shape=(4,), tasks=(CLASSES,), widths=[8]).eval(), split_of(70, (4,), CLASSES)
    first, *others = (
        fisher_diagonal(
            network, (CLASSES,), split, labels=labels, generator=torch.Generator().manual_seed(0), batch_size=size
        )
        for size in (1, 7, 64)
    )
    for other in others:
        for name, value in first.items():
            torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-6 * float(value.max()))


NETWORKS = {
    "cnn": lambda: build_cnn(input_shape=(1, 8, 8), tasks=(CLASSES,), channels=[4], features=6, batch_norm=True),
    "vit": lambda: build_vit(input_shape=(1, 8, 8), tasks=(CLASSES,), patch=4, width=8, depth=1, heads=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_serves_networks_that_vmap_cannot_take(name: str) -> None:
    network, split = NETWORKS[name]().eval(), split_of(5, (1, 8, 8), CLASSES)
    vectorized = fisher_diagonal(network, (CLASSES,), split)
    looped = fisher_diagonal(Branching(network), (CLASSES,), split)
    largest = max(float(value.max()) for value in vectorized.values())
    for key, value in vectorized.items():
        torch.testing.assert_close(looped[f"network.{key}"], value, rtol=1e-4, atol=1e-6 * largest)
    assert largest > 0


def test_tasks_add_up_and_parameters_of_others_have_none() -> None:
    tasks = (CLASSES, replace(VALUES, name="z"))
    network = build_mlp(input_shape=(4,), tasks=tasks, widths=[5]).eval()
    split = split_of(6, (4,), CLASSES)
    split = replace(split, targets={**split.targets, "z": torch.zeros(6, 3)})
    both, first, second = (fisher_diagonal(network, chosen, split) for chosen in (tasks, tasks[:1], tasks[1:]))
    for name, value in both.items():
        torch.testing.assert_close(value, first[name] + second[name], rtol=1e-5, atol=1e-9)
    assert not bool(first["heads.z.linear.weight"].any()) and bool(second["heads.z.linear.weight"].any())


def test_tied_parameters_stand_under_each_name() -> None:
    network = Line(3, 3)
    network.again = nn.Linear(3, 3)
    network.again.weight = network.linear.weight
    found = fisher_diagonal(network, (CLASSES,), split_of(5, (3,), CLASSES))
    assert found.keys() == network.state_dict().keys()
    assert torch.equal(found["again.weight"], found["linear.weight"]) and not bool(found["again.bias"].any())


def test_the_network_is_not_changed() -> None:
    network = build_mlp(input_shape=(4,), tasks=(CLASSES,), widths=[5]).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = fisher_diagonal(network.eval(), (CLASSES,), split_of(5, (4,), CLASSES))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in found.values())


def test_factors_are_a_square_root_of_the_scores_covariance() -> None:
    outputs_NC = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    factors_NRC = score_factors(CLASSES, outputs_NC, torch.zeros(4), labels="expected")
    p_NC = outputs_NC.softmax(1)
    expected = torch.diag_embed(p_NC) - p_NC[:, :, None] * p_NC[:, None, :]
    torch.testing.assert_close(factors_NRC.transpose(1, 2) @ factors_NRC, expected)
