"""What all strategies that train share: the order of examples, and the fused model of a finished training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transfuse.metrics import scores
from transfuse.models.predict import predict
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel

if TYPE_CHECKING:
    from transfuse.training.fit import FitResult


def order_seed(context: Context) -> int:
    """Seed of the example order: of the run alone, so that all arms see the same batches."""
    return derive_seed(context.seed, "order")


def finished(context: Context, result: FitResult, diagnostics: Mapping[str, Any] | None = None) -> FusedModel:
    """The fused model that is one trained network, scored on validation data.

    With `training.keep=best` its epoch was chosen on these very examples, which flatters the score a little; a training
    is not cross-fitted.
    """
    validation = context.development.validation
    outputs = predict(result.network, validation.inputs)
    gain = late_gain([row["validation/loss"] for row in result.history])
    return FusedModel(
        network=result.network,
        validation={
            task.name: scores(task, outputs[task.name], validation.targets[task.name])
            for task in context.development.tasks
        },
        diagnostics={"best_epoch": result.best_epoch, "late_gain": gain, **(diagnostics or {})},
        history=result.history,
        looks=len(result.history),
        steps=result.steps,
    )


def late_gain(losses: Sequence[float]) -> float | None:
    """How much the last fifth of a training lowered the lowest validation loss, as a share of it.

    `(m - l) / m` with `l` the lowest loss of the last fifth of the epochs and `m` that of those before.

    Args:
        losses: validation loss, epoch by epoch.

    Returns:
        Above 0 where the loss was still falling, at most 1; None for fewer than five epochs or where `m` is not > 0.

    Example:
        >>> round(late_gain([1.0, 0.8, 0.6, 0.5, 0.4]), 3)
        0.2
    """
    first = len(losses) - len(losses) // 5
    if first == len(losses) or (before := min(losses[:first])) <= 0:
        return None
    return (before - min(losses[first:])) / before
