"""The module that trains one network on several tasks, balanced by a weighting of losses or a rule on gradients.

Dimensions in tensor names: N examples, T tasks, P shared parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, final

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from transfuse.data.loaders import Batch
from transfuse.randomness import derive_seed
from transfuse.training.balance_record import BalanceRecord
from transfuse.training.balancer import Balancer, LossBalancer
from transfuse.training.jacobian import Gradients, Roles, gramian
from transfuse.training.labels import label_counts
from transfuse.training.module import TrainingModule
from transfuse.training.optimizer import group
from transfuse.training.progress import Row, streams
from transfuse.training.rule_step import RuleStep
from transfuse.training.settings import Training
from transfuse.training.step import StepInfo
from transfuse.types import Task


@final
class MultiTaskModule(TrainingModule):
    """min over theta of `sum_t L_t(theta)`, where a balancer decides how T losses become one step.

    A weighting of losses is optimized automatically. A rule on gradients is optimized manually: `RuleStep`. In both,
    losses are means over labelled examples of all devices together, however they are spread.

    Args:
        network: maps inputs to {task: (N, C)}; trained in place.
        tasks: in the order of the losses.
        settings: optimizer and schedule.
        balancer: the strategy; it sees neither network nor optimizer.
    """

    generator: torch.Generator  # made where training starts: one cannot be sent to a spawned process

    def __init__(self, network: nn.Module, tasks: tuple[Task, ...], settings: Training, balancer: Balancer) -> None:
        super().__init__(network, tasks, settings)
        self.names = tuple(task.name for task in tasks)
        self.balancer = balancer
        self.record = BalanceRecord(self.names, "multi-task training")
        self.weighting_state: nn.Module | None = None
        self.rule: RuleStep | None = None
        if balancer.kind == "loss":
            self.weighting: LossBalancer = balancer  # type: ignore[assignment]
            self.weighting_state = self.weighting.init(self.names)
        else:
            self.rule = RuleStep(self, balancer)  # type: ignore[arg-type]
            self.automatic_optimization = False
        self._checked = False
        self._before: tuple[list[int], Tensor] | None = None
        self._stream = streams(torch.device("cpu"))
        self._clock = 0.0
        self._seconds = 0.0
        self._first_step = 0

    def diagnostics(self) -> dict[str, Any]:
        """Of the finished training, for the record: the last epoch's weights, and how often a solver failed."""
        rows = self.progress.history
        last = rows[-1] if rows else {}
        found: dict[str, Any] = {
            "weights": {name: last[key] for name in self.names if (key := f"balance/{name}/weight") in last}
        }
        if self.rule is not None:
            found["solver_failures"] = sum(row.get("solver/failures", 0.0) for row in rows)
            found["gradient"] = {"backend": self.rule.balancer.backend, "reduce": self.rule.balancer.reduction}
        return found

    # losses

    def label_counts(self, batch: Batch) -> list[float]:
        """Labelled examples of each task in this device's batch."""
        return label_counts(self.tasks, batch, self.partial)

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """`combine` of the losses over all devices, whose gradient flows into this device's own."""
        if not self._checked:
            Roles.of(self.network, losses, self.names)
            self._checked = True
        losses_T, present = self._joined(torch.stack(losses), batch)
        if not present:
            return losses_T.sum()
        if self.weighting.looks_back:
            self._before = (present, losses_T.detach())
        return self.weighting.combine(losses_T, self.weighting_state, self.step_info(present, losses_T.detach()))

    def _joined(self, losses_T: Tensor, batch: Batch) -> tuple[Tensor, list[int]]:
        """The joined batch's losses of the tasks that have labels, and these tasks.

        Since DDP averages gradients, each device's own loss is weighted by its labels.
        """
        world = self.trainer.world_size
        if world == 1 and not any(self.partial):
            return losses_T, list(range(len(self.names)))
        own = self.label_counts(batch)
        if world == 1:
            present = [task for task, count in enumerate(own) if count > 0]
            return losses_T[present], present
        own_T = torch.tensor(own, dtype=losses_T.dtype, device=self.device)
        everywhere_T = self._reduced(own_T)
        mine_T = losses_T * (world * own_T / torch.where(everywhere_T > 0, everywhere_T, 1.0))
        joined_T = self._reduced(mine_T.detach()) / world + (mine_T - mine_T.detach())
        present = everywhere_T.nonzero().flatten().tolist()
        return joined_T[present], present

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The scalar of a weighting; of a rule a whole step, or a part of one."""
        if self.rule is None:
            return super().training_step(batch, batch_idx)
        try:
            self.rule.batch(batch)
        except Exception as error:
            self._tell(error)
            raise
        return None

    def step_info(self, present: Sequence[int], losses_T: Tensor | None) -> StepInfo:
        """Where the training is, for the tasks at `present`."""
        progress = self.progress
        return StepInfo(
            names=self.names,
            tasks=tuple(self.names[task] for task in present),
            step=progress.step,
            epoch=len(progress.history),
            losses_T=losses_T,
            epoch_means=progress.epoch_means,
            generator=self.generator,
        )

    # manual optimization

    def ends_group(self) -> bool:
        """Whether the batch is the last of an optimizer step."""
        batch = self._batch
        self._batch = (batch + 1) % self.budget.epoch_batches
        return (batch + 1) % self.settings.accumulate == 0 or batch + 1 == self.budget.epoch_batches

    def take_step(self) -> None:
        """Clips, and moves the parameters along what lies in their `.grad`."""
        wrapped = self.optimizers()
        assert isinstance(wrapped, LightningOptimizer)
        if self.settings.gradient_clip is not None:
            self.clip_gradients(wrapped.optimizer, self.settings.gradient_clip, "norm")
        scaler = self.scaler()
        if scaler is not None:
            # the scaler divides again, and skips the step where something is not finite
            for each in self.parameters():
                if each.grad is not None:
                    each.grad *= scaler.get_scale()
        self.step_with(wrapped.step, wrapped.optimizer)
        self.optimizer_zero_grad(0, 0, wrapped.optimizer)

    def scaler(self) -> GradScaler | None:
        """Of fp16 training."""
        plugin = self.trainer.precision_plugin
        return plugin.scaler if isinstance(plugin, MixedPrecision) else None

    # optimizer

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's, and the balancer's own without weight decay and with their own learning rate."""
        groups = [group(list(self.network.parameters()), weight_decay=self.settings.weight_decay)]
        if self.rule is not None:
            own: list[nn.Parameter] = self.rule.learned()
            lr: float | None = self.rule.learning_rate
        else:
            own = [] if self.weighting_state is None else list(self.weighting_state.parameters())
            lr = self.weighting.learning_rate_of_state
        if own:
            factor = 1.0 if lr is None else lr / self.settings.lr
            groups.append(group(own, weight_decay=0.0, lr_factor=factor))
        return groups

    # Lightning's hooks

    def on_train_start(self) -> None:
        """The balancer's stream and state go on where they were."""
        super().on_train_start()
        progress, self.generator = self.progress, torch.Generator()
        self.record = BalanceRecord(self.names, self.budget.name)
        if progress.generator is None:
            self.generator.manual_seed(derive_seed(self.budget.seed, "weighting"))
        else:
            self.generator.set_state(progress.generator)
        if progress.balancer:
            self.record.load_state_dict(progress.balancer["record"])
            if self.rule is not None:
                self.rule.load_state_dict(progress.balancer["rule"])

    def on_train_epoch_start(self) -> None:
        """The clock of the steps starts."""
        super().on_train_epoch_start()
        self._clock, self._first_step = time.perf_counter(), self.progress.step

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Once an epoch the tasks' gradients are compared, where the balancer does not see them anyway."""
        begins_epoch = self.progress.step % self.budget.epoch_steps == 0
        if self.rule is None and self.weighting.probe and begins_epoch:
            self._probe(batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Lets a weighting that asks for it see the batch's losses after the step."""
        if self._before is not None and self._batch % self.settings.accumulate == 0:
            self._look_back(batch, *self._before)
        self._before = None

    def capture(self) -> None:
        """Keeps the balancer's stream and state."""
        super().capture()
        self.progress.generator = self.generator.get_state()
        self.progress.balancer = {
            "record": self.record.state_dict(),
            "rule": {} if self.rule is None else self.rule.state_dict(),
        }

    def epoch_row(self) -> Row:
        """What balancing did in the epoch that ends."""
        return self.record.row(seconds=self._seconds, steps=self.progress.step - self._first_step)

    def prepare_validation(self) -> None:
        """The clock of the steps stops."""
        self._seconds = time.perf_counter() - self._clock

    def _look_back(self, batch: Batch, present: list[int], before_T: Tensor) -> None:
        """The losses after the step on the same batch, with the same dropout; running statistics do not move."""
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices), self.trainer.precision_plugin.forward_context():
            torch.set_rng_state(self._stream[0])
            if devices:
                torch.cuda.set_rng_state(self._stream[1], self.device)
            after_T, _ = self._joined(torch.stack(super().losses(batch)), batch)
            for name, value in self.network.named_buffers():
                value.copy_(buffers[name])
        self.weighting.after_step(before_T, after_T, self.weighting_state, self.step_info(present, before_T))

    def losses(self, batch: Batch) -> list[Tensor]:
        """Each task's loss; notes the stream that dropout draws from."""
        if self.rule is None and self.weighting.looks_back and torch.is_grad_enabled():
            self._stream = streams(self.device)
        return super().losses(batch)

    def _probe(self, batch: Batch) -> None:
        """Gradients of one batch in evaluation mode: neither dropout nor running statistics notice."""
        self.network.eval()
        losses = self.losses(batch)
        present = [task for task, count in enumerate(self.label_counts(batch)) if count > 0]
        gradients = Gradients(Roles.of(self.network, losses, self.names), self.device)
        shared = list(gradients.roles.shared.values())
        for task in present:
            found = torch.autograd.grad(losses[task], shared, retain_graph=True, allow_unused=True)
            gradients.add(task, [*found, *[None] * len(gradients.roles.own[task])], losses[task], 1.0)
        self.network.train()
        if not present:
            return
        losses_T = torch.stack(losses).detach()[present].requires_grad_()
        state = self.generator.get_state()
        (weights_T,) = torch.autograd.grad(
            self.weighting.combine(losses_T, self.weighting_state, self.step_info(present, losses_T.detach())), losses_T
        )
        self.generator.set_state(state)
        self.record.weights(present, weights_T.tolist())
        self.record.gradients(present, gramian(gradients.rows_TP[present]), weights_T.double().cpu())
