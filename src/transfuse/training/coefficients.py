"""The modules that train the coefficients of a weight mixture: by labels, or by the entropy of predictions."""

from __future__ import annotations

from abc import ABC
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from transfuse.data.loaders import Batch
from transfuse.training.mixture import WeightMixture
from transfuse.training.module import TrainingModule
from transfuse.training.settings import Training
from transfuse.types import NonFiniteError, Task


class CoefficientModule(TrainingModule, ABC):
    """min over coefficients of the sum of losses; a loss that is not finite ends the training at its step.

    Args:
        mixture: trained in place.
        tasks: that count.
        settings: optimizer and schedule.
    """

    def __init__(self, mixture: WeightMixture, tasks: tuple[Task, ...], settings: Training) -> None:
        super().__init__(mixture, tasks, settings)
        self._mixture = mixture
        self._finite_K = mixture.coefficients_KL.detach().mean(dim=1)

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """sum_t L_t.

        Raises:
            NonFiniteError: with the coefficients of the last step at which it was finite.
        """
        total = torch.stack(losses).sum()
        if not torch.isfinite(total):
            kept = ", ".join(f"{value:.4g}" for value in self._finite_K.tolist())
            raise NonFiniteError(
                f"{self.budget.name}: the loss is {float(total.detach())} at step {self.progress.step}. Coefficients "
                f"of the last finite step, averaged over tensors: {kept}. Try a smaller strategy.lr."
            )
        self._finite_K = self._mixture.coefficients_KL.detach().mean(dim=1)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """A single example has no statistics of its own."""
        if len(batch.ids) > 1 or not self._mixture.batch_statistics:
            super().validation_step(batch, batch_idx)


@final
class SoupModule(CoefficientModule):
    """The tasks' losses: `weight_fusion/learned_soup`."""


@final
class EntropyModule(CoefficientModule):
    """The mean entropy of predictions, without labels: `weight_fusion/adamerging`."""

    def losses(self, batch: Batch) -> list[Tensor]:
        """Each task's mean entropy in nats."""
        outputs = self.outputs(batch.inputs)
        return [prediction_entropy(task, outputs[task.name]) for task in self.tasks]


def prediction_entropy(task: Task, logits_NC: Tensor) -> Tensor:
    """The mean entropy of predicted probabilities, in nats.

    Classification: `-sum_c p_c log p_c`, p = softmax(z), mean over examples. Multi-label: the entropy of each label's
    `sigmoid(z)`, mean over examples and labels.

    Args:
        task: whose logits they are; not regression.
        logits_NC: (N, C).

    Example:
        >>> prediction_entropy(Task(name="y", kind="classification", outputs=2), torch.zeros(3, 2))
        tensor(0.6931)
    """
    if task.kind == "multilabel":
        return -(logits_NC.sigmoid() * logsigmoid(logits_NC) + (-logits_NC).sigmoid() * logsigmoid(-logits_NC)).mean()
    log_p_NC = logits_NC.log_softmax(dim=1)
    return -(log_p_NC.exp() * log_p_NC).sum(dim=1).mean()
