"""`weight_fusion/learned_soup`: the soup whose coefficients have the lowest loss on validation data.

Dimensions in tensor names: K models, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from transfuse.models.predict import predict
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.weight_fusion.base import predictions
from transfuse.strategy.weight_fusion.diagnostics import describe, verdict
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.learned import Coefficients, LearnedFusion, mean_over_tensors
from transfuse.strategy.weight_fusion.parts import Parts, take_apart
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError, Split

if TYPE_CHECKING:
    from transfuse.training.fit import FitResult


@dataclass(frozen=True, kw_only=True)
class LearnedSoup(LearnedFusion):
    """`x_l = sum_i a_il x_il`, with the coefficients of lowest loss on labelled validation data.

    `min over a, T of sum_t L_t(f(sum_i a_i x_i) / T_t)` by AdamW without weight decay at a constant learning rate, in
    batches of `training.batch_size`, from the uniform soup; the weights stay as they are. The uniform soup is kept
    where learning does not lower the loss of the network itself (T = 1), so that the loss on the examples it was
    fitted on is never above the uniform soup's. The scores of the record are cross-fitted: each fold is judged by
    coefficients that were learned without it.

    Attributes:
        granularity: coefficients for each `model`, or for each model and `layer` (each tensor of parameters).
        constraint: `simplex` (a softmax over models) or `none` (any numbers, from 1 / K).
        lr: > 0.
        epochs: passes over the validation split, >= 1.
        temperature: `learned` divides logits (not values) by a temperature a task while coefficients are learned, so
            that they need not make up for confidence; `none`. The fused network has none.

    Example:
        >>> LearnedSoup(granularity="model", constraint="none").lr
        0.05

    Reference:
        Wortsman et al. 2022 (2203.05482), "learned soup".

    Differs from the paper: the uniform soup is kept where it has the lower loss.
    """

    granularity: Literal["model", "layer"] = "layer"
    constraint: Literal["simplex", "none"] = "simplex"
    lr: float = 0.05
    epochs: int = 5
    temperature: Literal["learned", "none"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, allowed in (
            ("granularity", self.granularity, ("model", "layer")),
            ("constraint", self.constraint, ("simplex", "none")),
            ("temperature", self.temperature, ("learned", "none")),
        ):
            if value not in allowed:
                raise HyperparameterError(f"`{name}` should be {' or '.join(allowed)}. Found `{name} = {value}`.")
        if not 0 < self.lr < math.inf:
            raise HyperparameterError(f"`lr` should be > 0 and finite. Found `lr = {self.lr}`.")
        if self.epochs < 1:
            raise HyperparameterError(f"`epochs` should be >= 1. Found `epochs = {self.epochs}`.")

    def apply(self, context: Context) -> FusedModel:
        """Learns the coefficients on the whole validation split; scores those of the folds."""
        parts = take_apart(context, with_base=False, fuse=self.fuse)
        soup = self._soup(context, parts, context.development.validation)
        in_sample = validation_scores(context, predictions(context, soup.network))
        state = soup.network.state_dict()
        diagnostics = describe(context, parts, {key: state[key] for key in parts.states[0]}, soup.batch_norm)
        shares_K = mean_over_tensors(soup.coefficients)
        return FusedModel(
            network=soup.network,
            validation=validation_scores(context, self._held_out(context, parts)),
            fit=in_sample,
            members=tuple(range(len(parts.members))),
            weights={task.name: shares_K for task in context.development.tasks},
            diagnostics={
                **diagnostics,
                "coefficients": {name: list(row_K) for name, row_K in soup.coefficients.items()},
                "loss": soup.loss,
                "uniform_loss": soup.uniform_loss,
                "temperature": soup.temperatures,
                "verdict": soup.verdict or verdict(context, parts, in_sample, diagnostics),
            },
            history=soup.trained.history,
            looks=len(soup.trained.history) + 2,  # an epoch each; the learned and the uniform soup
            steps=soup.trained.steps,
        )

    def _soup(self, context: Context, parts: Parts, examples: Split) -> _Soup:
        """Coefficients from some validation examples."""
        from transfuse.training.coefficients import SoupModule
        from transfuse.training.mixture import WeightMixture

        tasks, num_models = context.development.tasks, len(parts.members)
        uniform_K = (1.0 / num_models,) * num_models
        divided = tuple(task.name for task in tasks if task.kind != "regression") if self.temperature != "none" else ()
        mixture = self.mixture(
            parts,
            uniform_K,
            per_tensor=self.granularity == "layer",
            simplex=self.constraint == "simplex",
            temperatures=divided,
        )
        settings = Training(
            epochs=self.epochs,
            batch_size=context.training.batch_size,
            optimizer="adamw",
            lr=self.lr,
            schedule="constant",
        )
        trained = context.fit(
            SoupModule(mixture, tasks, settings),
            examples,
            examples,
            settings=settings,
            seed=derive_seed(context.seed, self.name),
            name=self.name,
        )
        learned = trained.network
        assert isinstance(learned, WeightMixture)
        made = [self.summed(context, parts, found, uniform_K) for found in (learned.by_name, {})]
        losses = [_loss(context, network, examples) for network, _ in made]
        improved = losses[0] < losses[1]
        network, batch_norm = made[0 if improved else 1]
        return _Soup(
            coefficients=learned.by_name if improved else dict.fromkeys(learned.names, uniform_K),
            network=network,
            batch_norm=batch_norm,
            loss=min(losses),
            uniform_loss=losses[1],
            temperatures=learned.temperatures,
            trained=trained,
            verdict=None if improved or num_models < 2 else "no learned coefficients beat the uniform soup",
        )

    def _held_out(self, context: Context, parts: Parts) -> dict[str, Tensor]:
        """Task -> (N, C) outputs on the validation split, each fold's by coefficients learned on the others."""
        validation = context.development.validation
        labels = validation.targets[context.development.tasks[0].name]
        folds_N = folds(labels, len(labels), context.cross_fit, context.generator("cross_fit"))
        found: list[Mapping[str, Tensor]] = []
        for fold in range(context.cross_fit):
            soup = self._soup(context, parts, validation.select(folds_N != fold))
            found.append(predict(soup.network, validation.inputs[folds_N == fold]))
        order_N = torch.cat([(folds_N == fold).nonzero().squeeze(1) for fold in range(context.cross_fit)])
        back_N = order_N.argsort()
        return {name: torch.cat([outputs[name] for outputs in found])[back_N] for name in found[0]}


@dataclass(frozen=True, kw_only=True)
class _Soup:
    """What some examples made of the members; losses are those of networks without temperature."""

    coefficients: Coefficients
    network: nn.Module
    batch_norm: str
    loss: float
    uniform_loss: float
    temperatures: Mapping[str, float]
    trained: FitResult
    verdict: str | None


def _loss(context: Context, network: nn.Module, examples: Split) -> float:
    """The sum over tasks of the training loss, in sample; infinite where it is not a number."""
    from transfuse.training.losses import task_loss

    outputs = predict(network, examples.inputs)
    losses = [
        task.loss_scale * float(task_loss(task, outputs[task.name], examples.targets[task.name]))
        for task in context.development.tasks
    ]
    return math.fsum(losses) if all(map(math.isfinite, losses)) else math.inf
