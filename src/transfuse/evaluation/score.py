"""The one evaluation of a run: the fused model is final, and the test split is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.nn import Module

from transfuse.evaluation.cost import inference_cost, mean_cost
from transfuse.evaluation.predict import TestPredictor, predictions_on
from transfuse.evaluation.settings import Evaluation
from transfuse.metrics import ByClass, mean_scores, scores, scores_and_classes
from transfuse.strategy.base import FusedModel
from transfuse.strategy.output_fusion import Fused
from transfuse.types import EmptyTaskError, PredictionError, Problem, Scores, Task


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the test split says of a fused model.

    Attributes:
        test: task -> metric -> value.
        outputs: task -> (N, C) float32 logits or values; (M, N, C) for a report about members.
        targets: task -> labels of the test split.
        ids: (N,) int64 of the test examples.
        cost: `parameters`, `flops_per_example`, `latency_ms`, `peak_memory_mb`; of one member on average for a report
            about members.
        members: task -> (M, N, C) outputs of all base models where the predictions are made of them, else empty.
        by_class: task -> each class or label by itself, for one predictor of classes or label sets.
    """

    test: dict[str, Scores]
    outputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    ids: Tensor
    cost: dict[str, float]
    members: dict[str, Tensor] = field(default_factory=dict)
    by_class: dict[str, ByClass] = field(default_factory=dict)


def evaluate(fused: FusedModel, problem: Problem, base_models: TestPredictor | None, *, settings: Evaluation) -> Result:
    """Opens the test split: predictions, all metrics of every task, and what a prediction costs.

    Args:
        fused: the final model; its network is left in evaluation mode. Without a network (`baseline/mean_single`)
            scores are means over `fused.members` of each metric.
        problem: holds the test split.
        base_models: give the members' stored predictions; None where the fused network needs none.
        settings: of the run.

    Raises:
        PredictionError: outputs are not finite, do not fit the labels, or miss a task.
        EmptyTaskError: the test split has no label of a task.
    """
    test = problem.test
    tasks = problem.development.tasks
    for task in tasks:
        _require_labels(task, test.targets[task.name])
    outputs, members = predictions_on(fused, test, base_models, batch_size=settings.batch_size)
    if missing := [task.name for task in tasks if task.name not in outputs]:
        raise PredictionError(f"The fused model gives {', '.join(outputs)}. It has no outputs for {missing[0]}.")
    scored = {task.name: _scores(task, outputs[task.name], test.targets[task.name]) for task in tasks}
    networks = _networks(fused, base_models, settings)
    return Result(
        test={task: values for task, (values, _) in scored.items()},
        outputs={task.name: outputs[task.name] for task in tasks},
        targets={task.name: test.targets[task.name] for task in tasks},
        ids=test.ids,
        cost=mean_cost(
            [inference_cost(network, test.inputs[:1], repeats=settings.latency_repeats) for network in networks]
        ),
        members=members,
        by_class={task: found for task, (_, found) in scored.items() if found is not None},
    )


def write_predictions(path: Path, result: Result) -> None:
    """Writes `<task>/outputs`, `<task>/labels` and `ids` of the test split as one safetensors file."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"ids": result.ids}
    for task, outputs in result.outputs.items():
        tensors[f"{task}/outputs"] = outputs
        tensors[f"{task}/labels"] = result.targets[task]
    # Copies: safetensors takes neither views nor tensors that share memory.
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)


def _scores(task: Task, outputs: Tensor, targets: Tensor) -> tuple[Scores, ByClass | None]:
    if outputs.ndim == 3:
        return mean_scores([scores(task, outputs_NC, targets) for outputs_NC in outputs]), None
    return scores_and_classes(task, outputs, targets)


def _networks(fused: FusedModel, base_models: TestPredictor | None, settings: Evaluation) -> list[Module]:
    if isinstance(fused.network, Fused):
        fused.network.members.inference = settings.inference
    if fused.network is not None:
        return [fused.network.eval()]
    assert base_models is not None
    return [base_models[index].network().eval() for index in fused.members]


def _require_labels(task: Task, targets: Tensor) -> None:
    labelled = targets >= 0 if task.kind == "classification" else ~targets.isnan()
    if not bool(labelled.any()):
        raise EmptyTaskError(f"The test split has no label of task {task.name}. Found {len(targets)} examples.")
