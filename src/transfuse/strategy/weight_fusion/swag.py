"""`weight_fusion/swag`: networks drawn from a Gaussian over the weights along a training, averaged in their outputs.

Dimensions in tensor names: R deviations.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from transfuse.base_models.model import Description
from transfuse.models.predict import predict
from transfuse.state_dict import batch_norm_statistics
from transfuse.strategy.base import Arm, Context, FusedModel, Strategy
from transfuse.strategy.output_fusion.fused import Fused
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.weight_fusion.along_training import (
    begin,
    describe,
    late_snapshots,
    require_epochs,
    require_share,
    settle,
)
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weights.uniform import uniform_weights
from transfuse.types import Development, HyperparameterError, TrainingError

if TYPE_CHECKING:
    from transfuse.training.averaged import AveragedModule
    from transfuse.training.averaging import Kept, Snapshots
    from transfuse.training.fit import FitResult
    from transfuse.training.progress import Budget


def draw(kept: Kept, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """One set of weights from N(m, scale (V + D D^T / (R - 1)) / 2).

    x = m + sqrt(scale / 2) (sqrt(V) z_1 + D z_2 / sqrt(R - 1)), z_1 and z_2 standard normal, with one z_2 for all
    tensors together.

    Args:
        kept: of `training.averaging.Moments`: `mean`, `spread` (n V), `count` (n), R >= 2 `deviations` (columns of D).
        scale: >= 0, of the covariance; 1 is the paper's Gaussian.
        generator: on the CPU.

    Returns:
        New tensors in the mean's types; BatchNorm's statistics are the mean's.

    Reference:
        Maddox et al. 2019, 1902.02476, sec. 3.3.
    """
    deviations = kept["deviations"]
    z_R = torch.randn(len(deviations), generator=generator, dtype=torch.float64).div_(math.sqrt(len(deviations) - 1))
    means = batch_norm_statistics(kept["mean"])
    fixed = {*means, *means.values()}
    drawn: dict[str, Tensor] = {}
    for key, mean in kept["mean"].items():
        drawn[key] = mean.clone()
        if key in fixed:
            continue
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        noise *= (kept["spread"][key] / kept["count"]).sqrt()
        for deviation, weight in zip(deviations, z_R.tolist(), strict=True):
            noise.add_(deviation[key], alpha=weight)
        drawn[key].add_(noise, alpha=math.sqrt(scale / 2))
    return drawn


@dataclass(frozen=True, kw_only=True)
class SWAG(WeightFusion):
    """x_s ~ N(m, scale (V + D D^T / (R - 1)) / 2), s = 1..S;  p = (1/S) sum_s p(y | x_s).

    m and V are mean and variance of the snapshots after `start`, the columns of D the last snapshots' distances to the
    running mean. **Not one network**: S of them, whose outputs are averaged; the record says so. A run trains the
    network of `baseline/scratch` and reads no base model.

    Attributes:
        start: share of the training before which there is no snapshot, in [0, 1).
        every: epochs between two snapshots, >= 1, counted back from the end, which is one.
        rank: R, how many of the last deviations are kept, >= 2; 20 in the paper.
        samples: S, >= 1; 30 in the paper.
        scale: of the covariance, >= 0: standard deviations grow with its square root. 0 gives S times the mean.

    Example:
        >>> from transfuse.training.averaging import Moments
        >>> kept: Kept = {}
        >>> for number in (1.0, 2.0, 6.0):
        ...     Moments(rank=20).update(kept, {"w": torch.tensor(number)})
        >>> draw(kept, 0.0, torch.Generator())["w"], (kept["spread"]["w"] / kept["count"]).item()
        (tensor(3., dtype=torch.float64), 4.666666666666667)

    Reference:
        Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning", 1902.02476, alg. 1.
    """

    needs: ClassVar[str] = "networks whose outputs it averages, and no state dict holds them"
    instead: ClassVar[str] = "swa"
    align_models: ClassVar[bool] = False

    start: float = 0.75
    every: int = 1
    rank: int = 20
    samples: int = 30
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.start)
        require_epochs(self.every)
        if self.rank < 2:
            raise HyperparameterError(f"`rank` should be >= 2. Found `rank = {self.rank}`.")
        if self.samples < 1:
            raise HyperparameterError(f"`samples` should be >= 1. Found `samples = {self.samples}`.")
        if not 0 <= self.scale < math.inf:
            raise HyperparameterError(f"`scale` should be >= 0 and finite. Found `scale = {self.scale}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """The kind of problem; the pool does not matter."""
        Strategy.check(self, development, base_models)

    def snapshots(self, budget: Budget) -> Snapshots:
        """The ends of epochs after `start`.

        Raises:
            HyperparameterError: fewer than two, which have no variance.
        """
        found = late_snapshots(budget, self.start, self.every)
        if found.count < 2:
            raise HyperparameterError(
                f"{self.name} needs at least 2 snapshots. Found {found.count}: `start = {self.start}` and "
                f"`every = {self.every}` in a training of {budget.total_steps} steps, {budget.epoch_steps} an epoch. "
                "Should start be smaller, or training.epochs larger?"
            )
        return found

    def arm(self, context: Context) -> Arm:
        """The training, with the Gaussian's moments summed up on the way."""
        from transfuse.training.averaging import Moments

        module, fitting = begin(self, context, self.snapshots, Moments(rank=self.rank))
        return Arm(fitting=fitting, finished=lambda fitting: self._fused(context, module, fitting.result()))

    def apply(self, context: Context) -> FusedModel:
        """Trains to the end of the budget, then draws; base models are not read."""
        arm = self.arm(context)
        arm.advance(arm.total_steps)
        return arm.finish()

    def _fused(self, context: Context, module: AveragedModule, result: FitResult) -> FusedModel:
        from transfuse.training.averaging import on_device

        kept = on_device(module.progress.average, torch.device("cpu"))
        if kept.get("count", 0) < 2:
            raise TrainingError(f"{self.name} was finished at step {result.steps}, before its second snapshot.")
        networks, modes = self._draws(context, kept, result.network)
        tasks, inputs = context.development.tasks, context.development.validation.inputs
        network = Fused(
            networks,
            {task.name: LinearPool(task.kind, weights=uniform_weights(self.samples)) for task in tasks},
            kept=range(self.samples),
            num_members=self.samples,
        ).eval()
        return FusedModel(
            network=network,
            validation=validation_scores(context, predict(network, inputs)),
            diagnostics={
                **describe(self, module, modes[0]),
                "predictor": f"the average of the outputs of {self.samples} sampled networks; no single network",
                "deviations": len(kept["deviations"]),
                "last_weights": validation_scores(context, predict(result.network, inputs)),
            },
            history=result.history,
            steps=result.steps,
        )

    def _draws(self, context: Context, kept: Kept, last: nn.Module) -> tuple[list[nn.Module], list[str]]:
        """S networks with drawn weights, and how the statistics of each were made."""
        from transfuse.training.averaging import averaged_state

        generator = context.generator(self.name)
        networks = [copy.deepcopy(last) for _ in range(self.samples)]
        like = last.state_dict()
        drawn = (averaged_state(draw(kept, self.scale, generator), like) for _ in networks)
        return networks, [settle(self, context, network, state) for network, state in zip(networks, drawn, strict=True)]
