"""The module that runs the phases of a transfer plan."""

from __future__ import annotations

from functools import partial
from typing import Any, final

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transfuse.data.loaders import Batch
from transfuse.models.batch_norm import full_batches, reestimate
from transfuse.models.predict import predict
from transfuse.randomness import make_generator
from transfuse.training.losses import task_losses
from transfuse.training.module import TrainingModule
from transfuse.training.optimizer import group
from transfuse.training.plan import Data, ParameterGroup, Phase, Plan
from transfuse.training.settings import Training
from transfuse.types import Split, Task


@final
class TransferModule(TrainingModule):
    """min over the trainable part of theta, phase by phase, of `sum_t loss_scale_t L_t(theta)`, plus penalties.

    One optimizer holds all parameters from the first step to the last. A frozen one has no gradient, so it gets neither
    moment nor decay; its layers' BatchNorm and dropout follow the mode of its group.

    Args:
        plan: its network is trained in place.
        tasks: what the network predicts.
        settings: optimizer and schedule.
        metric: that leading work selects by.
    """

    def __init__(self, plan: Plan, tasks: tuple[Task, ...], settings: Training, metric: str = "nll") -> None:
        super().__init__(plan.network, tasks, settings)
        self.plan = plan
        self.metric = metric
        self._seen: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    @property
    def trains(self) -> bool:
        """Whether the plan has a phase."""
        return bool(self.plan.phases)

    def begin(self, train: Split, validation: Split) -> None:
        """The plan's leading work."""
        data = self.data(train, validation)
        for work in self.plan.leading:
            self.plan = work.apply(self.plan, data)
        if not self.trains:
            self._judge(validation)

    def _judge(self, validation: Split) -> None:
        """Validation losses of a network that takes no step."""
        outputs = predict(self.network, validation.inputs)
        losses = task_losses(self.network, self.tasks, outputs, validation.targets)
        self.progress.scores = self._row("validation", [float(loss) for loss in losses])
        self._check_finite("validation", self.progress.scores["validation/loss"])

    def data(self, train: Split, validation: Split) -> Data:
        """What leading and finishing work see."""
        return Data(
            tasks=self.tasks,
            train=train,
            validation=validation,
            batch_size=self.settings.batch_size,
            seed=self.budget.seed,
            metric=self.metric,
        )

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """Factor times sum_t L_t, plus penalties."""
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        if self._phase.loss_factor != 1.0:
            total = total * self._phase.loss_factor
        for penalty in self._phase.penalties:
            total = total + penalty(self.network, batch.inputs, self._seen)
        self._seen.clear()
        return total

    def boundaries(self) -> tuple[int, ...]:
        """Where a phase ends and another begins."""
        return self.plan.ends(self.budget.total_steps)[:-1]

    def phase(self) -> Phase:
        """The phase that the next step belongs to."""
        for phase, end in zip(self.plan.phases, self.plan.ends(self.budget.total_steps), strict=True):
            if self.progress.step < end:
                return phase
        return self.plan.phases[-1]

    def setup(self, stage: str) -> None:
        """Freezes what the phase does not train."""
        super().setup(stage)
        self._phase = self.phase()
        of_name = _groups_by_name(self._phase)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(of_name[name].trainable)
            parameter.grad = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups that stay the same sets in all phases, with this phase's rates and decays."""
        phases = [_groups_by_name(phase) for phase in self.plan.phases]
        now = _groups_by_name(self._phase)
        together: dict[tuple[int, ...], list[str]] = {}
        for name, _ in self.network.named_parameters():
            together.setdefault(tuple(id(groups[name]) for groups in phases), []).append(name)
        parameters = dict(self.network.named_parameters())
        default = self.settings.weight_decay
        return [
            group(
                [parameters[name] for name in names],
                weight_decay=default if (decay := now[names[0]].weight_decay) is None else decay,
                lr_factor=now[names[0]].lr_factor,
            )
            for names in together.values()
        ]

    def on_train_start(self) -> None:
        """Statistics of the target data replace the source's where the phase says so."""
        super().on_train_start()
        for penalty in self._phase.penalties:
            penalty.to(self.device)
            for name in penalty.layers:
                self._hooks.append(self.network.get_submodule(name).register_forward_hook(partial(self._see, name)))
        if self.progress.step in (0, *self.boundaries()):
            self._reestimate()

    def on_train_end(self) -> None:
        """The network is left without hooks."""
        super().on_train_end()
        while self._hooks:
            self._hooks.pop().remove()
        self._seen.clear()

    def _see(self, name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._seen[name] = output

    def apply_modes(self) -> None:
        """Layers whose group is not in `train` mode neither drop out nor move their statistics."""
        for layer, mode in self._modes():
            layer.train(mode == "train")

    def prepare_validation(self) -> None:
        """Statistics follow the weights at the end of an epoch; not at a pause, which must change nothing."""
        if self.budget.ends_epoch(self.progress.step):
            self._reestimate()

    def _reestimate(self) -> None:
        """One pass over the training data, the same on every rank."""
        layers = [layer for layer, mode in self._modes() if mode == "reestimate"]
        generator = make_generator(self.budget.seed, "batch_norm")
        reestimate(self.network, layers, full_batches(self.memory.train.inputs, self.settings.batch_size, generator))

    def _modes(self) -> list[tuple[nn.Module, str]]:
        return layer_modes(self.network, self._phase)


def layer_modes(network: nn.Module, phase: Phase) -> list[tuple[nn.Module, str]]:
    """Each layer with the BatchNorm mode of its parameters' group.

    A layer without parameters (dropout, BatchNorm without affine part) goes with the layer before it.
    """
    of_name = _groups_by_name(phase)
    modes: list[tuple[nn.Module, str]] = []
    mode = next(iter(phase.groups)).batch_norm
    for prefix, layer in network.named_modules():
        own = [f"{prefix}.{name}" if prefix else name for name, _ in layer.named_parameters(recurse=False)]
        if own:
            mode = next((of_name[name].batch_norm for name in own if name in of_name), mode)
        if own or not any(True for _ in layer.children()):
            modes.append((layer, mode))
    return modes


def _groups_by_name(phase: Phase) -> dict[str, ParameterGroup]:
    return {name: each for each in phase.groups for name in each.names}
