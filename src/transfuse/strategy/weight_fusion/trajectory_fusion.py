"""Weight fusions of snapshots of one training: given as a list, or averaged along a training of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from transfuse.base_models.model import Description
from transfuse.models.predict import predict
from transfuse.strategy.base import Arm, Context, FusedModel, Strategy
from transfuse.strategy.weight_fusion.along_training import begin, describe, settle, worse_than_last
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.types import Development

if TYPE_CHECKING:
    from transfuse.training.averaged import AveragedModule
    from transfuse.training.averaging import Average, Snapshots
    from transfuse.training.fit import FitResult
    from transfuse.training.progress import Budget


@dataclass(frozen=True, kw_only=True)
class TrajectoryFusion(TensorFusion):
    """An average of snapshots of one training.

    `merge` takes the snapshots in the order of training. A run uses no base model: it trains the network of
    `baseline/scratch` and averages on the way, so that only one network is kept whatever the number of snapshots; its
    steps are charged to this strategy. What is not fused, and running statistics with `batch_norm=keep`, are those of
    the end of training; with `batch_norm=average` statistics are averaged as the weights are.
    """

    align_models: ClassVar[bool] = False

    @abstractmethod
    def snapshots(self, budget: Budget) -> Snapshots:
        """The steps whose weights are snapshots."""

    @abstractmethod
    def average(self) -> Average:
        """How snapshots are averaged along the training."""

    @abstractmethod
    def remedy(self, num_snapshots: int) -> str:
        """What to try where the average is no better than the last weights."""

    def check(self, development: Development, base_models: Description) -> None:
        """The kind of problem; the pool does not matter."""
        Strategy.check(self, development, base_models)

    def arm(self, context: Context) -> Arm:
        """The training, averaged on the way. Finished before the first snapshot it gives the weights as they are."""
        module, fitting = begin(self, context, self.snapshots, self.average())
        return Arm(fitting=fitting, finished=lambda fitting: self._fused(context, module, fitting.result()))

    def apply(self, context: Context) -> FusedModel:
        """Trains to the end of the budget; base models are not read."""
        arm = self.arm(context)
        arm.advance(arm.total_steps)
        return arm.finish()

    def _fused(self, context: Context, module: AveragedModule, result: FitResult) -> FusedModel:
        from transfuse.training.averaging import averaged_state

        network, inputs = result.network, context.development.validation.inputs
        last = validation_scores(context, predict(network, inputs))
        averaged = averaged_state(module.progress.average.get("mean", {}), network.state_dict())
        batch_norm = settle(self, context, network, averaged)
        validation = validation_scores(context, predict(network, inputs))
        diagnostics = describe(self, module, batch_norm)
        worse, num_snapshots = worse_than_last(context, validation, last), diagnostics["snapshots"]
        found = f"{num_snapshots} snapshot{'' if num_snapshots == 1 else 's'}: nothing to average"
        told = worse if num_snapshots > 1 else found
        return FusedModel(
            network=network,
            validation=validation,
            diagnostics={
                **diagnostics,
                "last_weights": last,
                "verdict": None if told is None else f"{told}. {self.remedy(num_snapshots)}",
            },
            history=result.history,
            steps=result.steps,
        )
