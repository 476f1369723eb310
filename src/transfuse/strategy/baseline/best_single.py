"""`baseline/best_single`: the base model that is best on validation data."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.base_models.model import Description
from transfuse.strategy.base import Context, FusedModel, require_all_tasks
from transfuse.strategy.baseline.base import Baseline
from transfuse.strategy.selection import select_network
from transfuse.types import Development


@dataclass(frozen=True, kw_only=True)
class BestSingle(Baseline):
    """m* = argmin_m loss_m on the validation split, by the run's selection metric; ties go to the first.

    Its validation score is cross-fitted, since the best of several is chosen on the same examples.
    """

    def check(self, development: Development, base_models: Description) -> None:
        """Every member must predict every task."""
        super().check(development, base_models)
        require_all_tasks(self, development, base_models)

    def apply(self, context: Context) -> FusedModel:
        """Picks the member."""
        logits = context.base_models.logits("validation")
        candidates = [
            {task: values[index] for task, values in logits.items()} for index in range(len(context.base_models))
        ]
        selection = select_network(context, candidates)
        return FusedModel(
            network=context.base_models[selection.index].network(),
            validation=selection.validation,
            fit=selection.fit,
            members=(selection.index,),
            diagnostics={"selected": context.base_models.description.members[selection.index].name},
            looks=len(candidates),
        )
