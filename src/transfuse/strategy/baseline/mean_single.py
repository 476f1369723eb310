"""`baseline/mean_single`: what one base model is worth on average."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.base_models.model import Description
from transfuse.metrics import mean_scores, scores
from transfuse.strategy.base import Context, FusedModel, require_all_tasks
from transfuse.strategy.baseline.base import Baseline
from transfuse.types import Development


@dataclass(frozen=True, kw_only=True)
class MeanSingle(Baseline):
    """The mean over members of each score. A report: it has no network of its own."""

    def check(self, development: Development, base_models: Description) -> None:
        """Every member must predict every task."""
        super().check(development, base_models)
        require_all_tasks(self, development, base_models)

    def apply(self, context: Context) -> FusedModel:
        """Averages the members' scores."""
        logits = context.base_models.logits("validation")
        targets = context.development.validation.targets
        return FusedModel(
            network=None,
            validation={
                task.name: mean_scores([scores(task, member, targets[task.name]) for member in logits[task.name]])
                for task in context.development.tasks
            },
            members=tuple(range(len(context.base_models))),
        )
