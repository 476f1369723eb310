"""`weight_fusion/adamerging`: the coefficients of task vectors that make predictions least uncertain.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from transfuse.base_models.model import Description
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.base import Need, predictions
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.learned import LearnedFusion, mean_over_tensors
from transfuse.strategy.weight_fusion.parts import take_apart
from transfuse.training.settings import Training
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError

if TYPE_CHECKING:
    from transfuse.training.fit import FitResult
    from transfuse.training.mixture import WeightMixture


@dataclass(frozen=True, kw_only=True)
class AdaMerging(LearnedFusion):
    """`x_l = b_l + sum_i a_il (x_il - b_l)`, with the coefficients of lowest mean entropy of predictions.

    `min over a of sum_t mean_x H(p_t(x; a))` by Adam at a constant learning rate, from `a = init`: no label is read.
    Tasks of one problem share their inputs, so each batch serves all of them. With heads of their own
    (`base_models=per_task`) the backbones are fused and each task's entropy is that under its head.

    Attributes:
        granularity: coefficients for each `task` (model), or for each and `layer` (each tensor of parameters).
        init: what all coefficients start at, finite; task arithmetic's scale.
        lr: > 0.
        steps: >= 0.
        batch: inputs a step, >= 1.

    Example:
        >>> AdaMerging(granularity="task").init
        0.3

    Reference:
        Yang et al. 2024, AdaMerging (2310.02575).

    Differs from the paper: the inputs are those of the training split, where the paper takes the test inputs that it
    is scored on; validation scores stay honest.
    """

    base: ClassVar[Need] = "required"

    granularity: Literal["task", "layer"] = "layer"
    init: float = 0.3
    lr: float = 1e-3
    steps: int = 500
    batch: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.granularity not in ("task", "layer"):
            raise HyperparameterError(
                f"`granularity` should be task or layer. Found `granularity = {self.granularity}`."
            )
        if not math.isfinite(self.init):
            raise HyperparameterError(f"`init` should be finite. Found `init = {self.init}`.")
        if not 0 < self.lr < math.inf:
            raise HyperparameterError(f"`lr` should be > 0 and finite. Found `lr = {self.lr}`.")
        if self.steps < 0:
            raise HyperparameterError(f"`steps` should be >= 0. Found `steps = {self.steps}`.")
        if self.batch < 1:
            raise HyperparameterError(f"`batch` should be >= 1. Found `batch = {self.batch}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """Predictions must be probabilities."""
        super().check(development, base_models)
        for task in development.tasks:
            if task.kind == "regression":
                raise IncompatibleStrategyError(
                    f"{self.name} minimizes the entropy of predicted probabilities. Found regression task {task.name}. "
                    "Did you mean strategy=weight_fusion/learned_soup?"
                )

    def apply(self, context: Context) -> FusedModel:
        """Learns the coefficients on training inputs, fuses, and scores the result."""
        parts = take_apart(context, with_base=True, fuse=self.fuse)
        init_K = (self.init,) * len(parts.members)
        mixture = self.mixture(parts, init_K, per_tensor=self.granularity == "layer")
        trained = self._trained(context, mixture) if self.steps else None
        coefficients = dict.fromkeys(mixture.names, init_K) if trained is None else mixture.by_name
        network, batch_norm = self.summed(context, parts, coefficients, init_K)
        validation = validation_scores(context, predictions(context, network))
        state = network.state_dict()
        diagnostics = describe(context, parts, {key: state[key] for key in parts.states[0]}, batch_norm)
        history = () if trained is None else trained.history
        return FusedModel(
            network=network,
            validation=validation,
            members=tuple(range(len(parts.members))),
            weights={task.name: mean_over_tensors(coefficients) for task in context.development.tasks},
            diagnostics={
                **diagnostics,
                "coefficients": {name: list(row_K) for name, row_K in coefficients.items()},
                "entropy": [row["train/loss"] for row in history],
                "verdict": verdict(context, parts, validation, diagnostics),
            },
            history=history,
            steps=0 if trained is None else trained.steps,
        )

    def _trained(self, context: Context, mixture: WeightMixture) -> FitResult:
        """Trains the mixture in place, on inputs without labels."""
        from transfuse.training.coefficients import EntropyModule

        development, world = context.development, context.fit.world_size
        settings = Training(
            epochs=None,
            steps=self.steps,
            batch_size=-(-self.batch // world) * world,
            optimizer="adam",
            lr=self.lr,
            schedule="constant",
            keep="last",
        )
        trained = context.fit(
            EntropyModule(mixture, development.tasks, settings),
            replace(development.train, targets={}),
            replace(development.validation, targets={}),
            settings=settings,
            seed=derive_seed(context.seed, self.name),
            name=self.name,
        )
        learned = trained.network
        mixture.load_state_dict(learned.state_dict())
        return trained
