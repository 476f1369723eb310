"""What weight fusions share that average the weights along one training of their own.

The training is that of `baseline/scratch`: the run's architecture, settings, first weights and batches. It goes to the
end of the budget and keeps its last weights, because the end is part of the average: `training.patience` and
`training.keep` do not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from transfuse.metrics import higher_is_better, metric_of
from transfuse.models.batch_norm import has_batch_norm
from transfuse.state_dict import batch_norm_statistics
from transfuse.strategy.base import Context
from transfuse.strategy.trained import order_seed
from transfuse.strategy.weight_fusion.base import WeightFusion, measure_statistics
from transfuse.types import HyperparameterError, Scores

if TYPE_CHECKING:
    from transfuse.training.averaged import AveragedModule
    from transfuse.training.averaging import Average, Snapshots
    from transfuse.training.fit import Fitting
    from transfuse.training.progress import Budget


def begin(
    fusion: WeightFusion, context: Context, snapshots: Callable[[Budget], Snapshots], average: Average
) -> tuple[AveragedModule, Fitting]:
    """The module that averages what the fusion fuses, and its training, which has not begun.

    Args:
        fusion: says which tensors, and how BatchNorm's statistics are made.
        context: of the run.
        snapshots: the steps of a budget whose weights are taken in.
        average: how.

    Raises:
        HyperparameterError: a pattern of `only` or `skip` matches nothing.
    """
    from transfuse.training.averaged import AveragedModule
    from transfuse.training.progress import Budget

    development = context.development
    training = replace(context.training, patience=None, keep="last")
    network = context.architecture.build(development.input_shape, development.tasks, context.generator("init"))
    budget = Budget.of(training, examples=len(development.train), world=context.fit.world_size)
    module = AveragedModule(
        network,
        development.tasks,
        training,
        snapshots=snapshots(budget),
        average=average,
        keys=averaged_keys(fusion, network),
    )
    fitting = context.fit.begin(
        module,
        development.train,
        development.validation,
        settings=training,
        seed=order_seed(context),
        name=fusion.name,
        key=context.training_key(fusion.name, repr(fusion)),
    )
    return module, fitting


def averaged_keys(fusion: WeightFusion, network: nn.Module) -> frozenset[str]:
    """The floating tensors that are fused; BatchNorm's statistics only where they are averaged."""
    state = network.state_dict()
    chosen = {key for key in fusion.selection.of(state) if state[key].is_floating_point()}
    means = batch_norm_statistics(state)
    keys = chosen - set(means) - set(means.values())
    if fusion.batch_norm == "average":
        keys |= {key for mean, variance in means.items() if mean in chosen for key in (mean, variance)}
    return frozenset(keys)


def settle(fusion: WeightFusion, context: Context, network: nn.Module, averaged: Mapping[str, Tensor]) -> str:
    """Loads averaged tensors into the network at the end of training, in place.

    Returns:
        How BatchNorm's statistics were made: `none` where it has none, or the average is the last weights.
    """
    state = network.state_dict()
    same = all(torch.equal(value, state[key]) for key, value in averaged.items())
    network.load_state_dict({**state, **averaged})
    if same or not has_batch_norm(network):
        return "none"
    if fusion.batch_norm == "reestimate":
        measure_statistics(context, network)
    return fusion.batch_norm


def describe(fusion: WeightFusion, module: AveragedModule, batch_norm: str) -> dict[str, Any]:
    """Numbers of every such fusion for the record."""
    state = module.network.state_dict()
    return {
        "fused": "backbone" if fusion.fuse == "backbone" else "all",
        "fused_tensors": len(module.keys),
        "fused_elements": sum(state[key].numel() for key in module.keys),
        "batch_norm": batch_norm,
        "snapshots": module.progress.average.get("count", 0),
    }


def worse_than_last(context: Context, average: Mapping[str, Scores], last: Mapping[str, Scores]) -> str | None:
    """The begin of a sentence where the average is worse than the last weights on some task; None otherwise.

    Args:
        context: of the run.
        average: task -> validation scores of the averaged weights.
        last: of the weights at the end of training.
    """
    for task in context.development.tasks:
        metric = metric_of(task, context.selection_metric)
        found, reference = average[task.name][metric], last[task.name][metric]
        if found < reference if higher_is_better(metric) else found > reference:
            where = f" on {task.name}" if len(context.development.tasks) > 1 else ""
            return f"the average is worse than the last weights ({metric} {found:.3g} against {reference:.3g}{where})"
    return None


def late_snapshots(budget: Budget, start: float, every: int) -> Snapshots:
    """Every `every`-th epoch counted back from the end of training, none before the share `start` of its steps."""
    from transfuse.training.averaging import Snapshots

    total = budget.total_steps
    return Snapshots(total=total, stride=every * budget.epoch_steps, first=start * total)


def require_share(start: float) -> None:
    """Raises `HyperparameterError` unless `start` is a share of a training that leaves something."""
    if not 0 <= start < 1:
        raise HyperparameterError(f"`start` should be in [0, 1). Found `start = {start}`.")


def require_epochs(every: int) -> None:
    """Raises `HyperparameterError` unless there is an epoch between two snapshots."""
    if every < 1:
        raise HyperparameterError(f"`every` should be >= 1. Found `every = {every}`.")
