from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from transfuse import evaluation
from transfuse.evaluation import Evaluation, evaluate, write_predictions
from transfuse.metrics import mean_scores, scores
from transfuse.models import build_mlp
from transfuse.strategy.base import FusedModel
from transfuse.strategy.output_fusion import Fused
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.types import Development, EmptyTaskError, PredictionError, Problem, Split, Task

SHAPE = Task(name="shape", kind="classification", outputs=3)
SIZE = Task(name="size", kind="regression", outputs=1)
COSTS = {"parameters", "flops_per_example", "latency_ms", "peak_memory_mb"}
SETTINGS = Evaluation(latency_repeats=2, batch_size=4)


class Linear(nn.Module):
    """One linear head a task on inputs (N, 4)."""

    def __init__(self, *tasks: Task, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterDict(
            {task.name: nn.Parameter(torch.randn(4, task.outputs, generator=generator)) for task in tasks}
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {name: self.dropout(inputs) @ weight for name, weight in self.weights.items()}


class Mean(nn.Module):
    """A combiner that fails when it is asked to train."""

    def forward(self, logits_MNC: Tensor) -> Tensor:
        assert not self.training
        return logits_MNC.mean(0)


@dataclass
class Pool:
    """Base models that count how often they are asked about the test split."""

    networks: list[Linear]
    asked: list[Split] = field(default_factory=list)

    def test_logits(self, test: Split) -> dict[str, Tensor]:
        self.asked.append(test)
        with torch.no_grad():
            outputs = [network.eval()(test.inputs) for network in self.networks]
        return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}

    def __getitem__(self, index: int) -> Any:
        return SimpleNamespace(network=lambda: self.networks[index])


def split(*tasks: Task, num_examples: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    targets = {
        task.name: torch.arange(num_examples) % 3
        if task.kind == "classification"
        else torch.randn(num_examples, task.outputs, generator=generator)
        for task in tasks
    }
    inputs = torch.randn(num_examples, 4, generator=generator)
    return Split(inputs=inputs, targets=targets, ids=100 * seed + torch.arange(num_examples))


def problem(*tasks: Task) -> Problem:
    train, validation, test = (split(*tasks, num_examples=n, seed=seed) for seed, n in enumerate((5, 6, 9), start=1))
    development = Development(name="toy", tasks=tasks, train=train, validation=validation, fingerprint="0")
    return Problem(development=development, test=test)


def fused(network: nn.Module | None, **fields: Any) -> FusedModel:
    return FusedModel(network=network, validation={}, **fields)


def test_a_network_is_run_on_the_test_split() -> None:
    data, network = problem(SHAPE, SIZE), Linear(SHAPE, SIZE)
    result = evaluate(fused(network.train()), data, None, settings=SETTINGS)
    for task in (SHAPE, SIZE):
        expected = data.test.inputs @ network.weights[task.name].detach()
        assert torch.allclose(result.outputs[task.name], expected, atol=1e-6)
        assert result.test[task.name] == scores(task, result.outputs[task.name], data.test.targets[task.name])
        assert torch.equal(result.targets[task.name], data.test.targets[task.name])
    assert result.ids.tolist() == list(range(300, 309))
    assert not network.training
    assert set(result.cost) == COSTS
    assert result.cost["parameters"] == 4 * 3 + 4
    assert result.cost["flops_per_example"] == 2 * (4 * 3 + 4)


def test_combiners_read_the_members_test_logits_once_and_run_no_network() -> None:
    class Untouched(Linear):
        calls = 0

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            type(self).calls += len(inputs) > 1
            return super().forward(inputs)

    data, pool = problem(SHAPE, SIZE), Pool([Linear(SHAPE, SIZE, seed=seed) for seed in range(3)])
    model = fused(Untouched(SHAPE, SIZE), combiners={"shape": Mean().train(), "size": Mean()})
    result = evaluate(model, data, pool, settings=SETTINGS)
    assert len(pool.asked) == 1
    assert pool.asked[0] is data.test
    assert Untouched.calls == 0
    expected = pool.test_logits(data.test)["shape"].mean(0)
    assert torch.equal(result.outputs["shape"], expected)
    assert result.test["shape"] == scores(SHAPE, expected, data.test.targets["shape"])
    assert result.outputs["shape"].dtype == torch.float32


@pytest.mark.parametrize("inference", ["loop", "stacked"])
def test_a_fused_network_runs_its_members_as_the_settings_say(inference: Any) -> None:
    networks = [build_mlp(input_shape=(4,), tasks=(SHAPE,), widths=[5]) for _ in range(3)]
    pool = LinearPool("classification", weights=torch.tensor([0.25, 0.0, 0.75], dtype=torch.float64))
    network = Fused(networks, {"shape": pool}, kept=range(3), num_members=3)
    calls: list[int] = []
    networks[0].register_forward_hook(lambda *_: calls.append(1))
    result = evaluate(fused(network), problem(SHAPE), None, settings=replace(SETTINGS, inference=inference))
    assert bool(calls) == (inference == "loop")
    assert result.cost["flops_per_example"] == 2 * 3 * (4 * 5 + 5 * 3)


def test_without_a_network_scores_and_costs_are_means_over_its_members() -> None:
    data, pool = problem(SHAPE), Pool([Linear(SHAPE, seed=seed) for seed in range(4)])
    result = evaluate(fused(None, members=(0, 2, 3)), data, pool, settings=SETTINGS)
    logits_MNC = pool.test_logits(data.test)["shape"][[0, 2, 3]]
    assert torch.equal(result.outputs["shape"], logits_MNC)
    expected = mean_scores([scores(SHAPE, logits_NC, data.test.targets["shape"]) for logits_NC in logits_MNC])
    assert result.test == {"shape": expected}
    assert result.cost["parameters"] == 12
    assert result.cost["flops_per_example"] == 24


def test_the_test_split_is_opened_once() -> None:
    class Watched:
        """A problem that says when its test split is read."""

        def __init__(self, inner: Problem) -> None:
            self.development, self._test, self.opened = inner.development, inner.test, 0

        @property
        def test(self) -> Split:
            self.opened += 1
            return self._test

    watched: Any = Watched(problem(SHAPE))
    evaluate(fused(Linear(SHAPE)), watched, None, settings=SETTINGS)
    assert watched.opened == 1


def test_predictions_round_trip(tmp_path: Path) -> None:
    data = problem(SHAPE, SIZE)
    pool = Pool([Linear(SHAPE, SIZE, seed=seed) for seed in range(2)])
    result = evaluate(fused(None, members=(0, 1)), data, pool, settings=SETTINGS)
    write_predictions(tmp_path / "predictions.safetensors", result)
    found = load_file(tmp_path / "predictions.safetensors")
    assert set(found) == {"ids", "shape/outputs", "shape/labels", "size/outputs", "size/labels"}
    assert found["ids"].dtype == torch.int64
    assert torch.equal(found["ids"], data.test.ids)
    for name in ("shape", "size"):
        assert torch.equal(found[f"{name}/outputs"], result.outputs[name])
        assert torch.equal(found[f"{name}/labels"], data.test.targets[name])


def test_outputs_that_share_memory_are_written(tmp_path: Path) -> None:
    values = torch.randn(2, 4).T
    result = evaluation.Result(
        test={},
        outputs={"a": values, "b": values},
        targets={"a": values[:, 0], "b": values},
        ids=torch.arange(4),
        cost={},
    )
    write_predictions(tmp_path / "shared.safetensors", result)
    found = load_file(tmp_path / "shared.safetensors")
    assert torch.equal(found["a/outputs"], values)
    assert torch.equal(found["a/labels"], values[:, 0])


class Diverged(Linear):
    """Predicts `value` for the examples whose first input is above 0."""

    def __init__(self, value: float) -> None:
        super().__init__(SHAPE)
        self.value = value

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {
            name: torch.where(inputs[:, :1] > 0, self.value, output) for name, output in super().forward(inputs).items()
        }


def first_positive(data: Problem) -> int:
    position = int((data.test.inputs[:, 0] > 0).nonzero()[0])
    assert position > 0
    return int(data.test.ids[position])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_outputs_name_task_and_example(value: float) -> None:
    data = problem(SHAPE)
    message = rf"The fused model predicts .* for task shape: .* id {first_positive(data)}\."
    with pytest.raises(PredictionError, match=message):
        evaluate(fused(Diverged(value)), data, None, settings=SETTINGS)


def test_non_finite_outputs_name_the_member() -> None:
    data, pool = problem(SHAPE), Pool([Linear(SHAPE), Diverged(torch.nan)])
    message = rf"Member 1 predicts .* for task shape: .* id {first_positive(data)}\."
    with pytest.raises(PredictionError, match=message):
        evaluate(fused(None, members=(0, 1)), data, pool, settings=SETTINGS)


def without_labels(data: Problem) -> Problem:
    data.test.targets["shape"].fill_(-1)
    return data


@pytest.mark.parametrize(
    ("model", "change", "error", "message"),
    [
        (fused(None, members=(0,)), lambda data: data, PredictionError, "there are no base models"),
        (fused(Linear(SIZE)), lambda data: data, PredictionError, "gives size. It has no outputs for shape"),
        (fused(Linear(SHAPE)), without_labels, EmptyTaskError, "no label of task shape. Found 9 examples"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    model: FusedModel, change: Callable[[Problem], Problem], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(model, change(problem(SHAPE)), None, settings=SETTINGS)
