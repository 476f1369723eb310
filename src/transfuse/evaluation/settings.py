"""The `evaluation` group as typed values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transfuse.metrics import default_selection_metric, metric_names, unknown_metric
from transfuse.strategy.output_fusion.members import Inference
from transfuse.types import HyperparameterError, Task


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How predictions are judged.

    Attributes:
        selection_metric: what everything that selects reads on validation data; null takes the default of the task's
            kind: `nll`, for regression `rmse`.
        cross_fit: folds for honest validation scores of what was fitted on validation data, >= 2.
        latency_repeats: timed forward passes of one example, >= 1; fewer where they would take more than 0.2 s.
        batch_size: test examples a forward pass, >= 1.
        figures: whether the analysis of test predictions is drawn: `auto` (in a run of its own; the report of a sweep
            has figures), `always` or `never`. Its tables are written in any case.
        inference: how a fused network runs its members: `loop` one after the other, `stacked` as one network where
            their architecture allows it, `auto` the faster one.
        tuned: settings of `training` or `base_models`, such as `training.lr`, that a sweep has a grid of and of which
            each strategy takes its best on validation data, seed by seed. Reports then count the chosen runs alone.
    """

    selection_metric: str | None = None
    cross_fit: int = 5
    latency_repeats: int = 20
    batch_size: int = 1024
    figures: Literal["auto", "always", "never"] = "auto"
    inference: Inference = "auto"
    tuned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, least in (("cross_fit", 2), ("latency_repeats", 1), ("batch_size", 1)):
            value = getattr(self, field)
            if value < least:
                raise HyperparameterError(f"`{field}` should be >= {least}. Found `{field} = {value}`.")
        if self.figures not in ("auto", "always", "never"):
            raise HyperparameterError(f"`figures` should be auto, always or never. Found `figures = {self.figures}`.")
        if self.inference not in ("auto", "loop", "stacked"):
            raise HyperparameterError(
                f"`inference` should be auto, loop or stacked. Found `inference = {self.inference}`."
            )

        for key in self.tuned:
            if key.partition(".")[0] not in ("training", "base_models") or key.count(".") != 1:
                raise HyperparameterError(
                    f"`tuned` should name settings of training or base_models, such as training.lr. Found {key}."
                )

    def draws(self, *, alone: bool) -> bool:
        """Whether figures are drawn; `alone` says that the run is not a job of a sweep."""
        return self.figures == "always" or (self.figures == "auto" and alone)

    def metric_for(self, tasks: Sequence[Task]) -> str:
        """The selection metric for a problem with these tasks.

        Where tasks are of several kinds, those whose kind lacks the metric are judged by the default of their kind.

        Raises:
            HyperparameterError: no task has `selection_metric`.
        """
        if self.selection_metric is None:
            return default_selection_metric(tasks[0].kind)
        names = list(dict.fromkeys(name for task in tasks for name in metric_names(task.kind)))
        if self.selection_metric not in names:
            raise unknown_metric(self.selection_metric, names, "selection_metric")
        return self.selection_metric
