"""One optimizer step of a rule on the tasks' gradients: manual optimization.

Dimensions in tensor names: N examples, F features, T tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from transfuse.data.loaders import Batch
from transfuse.models.network import Network
from transfuse.training.balancer import GradientBalancer, JacobianBalancer, State
from transfuse.training.feature_gradients import FeatureBatch, check_feature
from transfuse.training.jacobian import Gradients, Roles, gramian, rows_of_torchjd

if TYPE_CHECKING:
    from transfuse.training.multi_task import MultiTaskModule

_LOG_EPS = 1e-8
_LEARNED_LR = 0.025


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Shared parameters that a rule decides on together: all their columns, and those that it is shown."""

    name: str
    columns: list[slice]
    shown: list[slice]
    shows_all: bool


class RuleStep:
    """Gradients of every task over all batches and devices of a step, then the rule, then one optimizer step.

    Args:
        module: whose network is trained.
        balancer: the rule.
    """

    learning_rate = _LEARNED_LR

    def __init__(self, module: MultiTaskModule, balancer: GradientBalancer | JacobianBalancer) -> None:
        self._module = module
        self.balancer = balancer
        self._states: dict[str, State] = {}
        self._weights: dict[str, dict[str, float]] = {}  # group -> task -> weight of the last decision
        self._since = 0  # steps since that decision
        self._gradients: Gradients | None = None
        self._groups: list[_Group] = []
        self._log_scale: nn.Parameter | None = None
        if balancer.transform == "imtl_l":
            # registered with the module: an optimizer group of its own, and in its state dict
            self._log_scale = nn.Parameter(torch.zeros(len(module.names)))
            module.register_parameter("loss_scales", self._log_scale)
        if balancer.backend == "feature":
            check_feature(module, balancer)

    def learned(self) -> list[nn.Parameter]:
        """What the transform of the losses learns."""
        return [] if self._log_scale is None else [self._log_scale]

    def state_dict(self) -> dict[str, Any]:
        """The rule's state of each group, and the weights that are in use."""
        states = {name: state.state_dict() for name, state in self._states.items()}
        return {"states": states, "weights": {k: dict(v) for k, v in self._weights.items()}, "since": self._since}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._states = {}
        for name, state in saved["states"].items():
            self._state(name).load_state_dict(state)
        self._weights = {name: dict(weights) for name, weights in saved["weights"].items()}
        self._since = saved["since"]

    # one batch

    def batch(self, batch: Batch) -> None:
        """Adds the batch's gradients; at the end of a group of batches, takes the step."""
        module = self._module
        features_NF, losses = self._forward(batch)
        module.add_losses(batch, losses)
        with torch.autocast(module.device.type, enabled=False):
            if self._gradients is None:
                self._gradients = Gradients(Roles.of(module.network, losses, module.names), module.device)
            counts = module.label_counts(batch)
            if self._alone:
                counts = [float(count > 0) for count in counts]
            if features_NF is not None:
                self._feature_step(self._gradients.roles, features_NF, losses, counts)
            elif self._reuses_alone([task for task, count in enumerate(counts) if count > 0]):
                self._reused_step(self._gradients, losses, counts)
            else:
                self._add_rows(self._gradients, losses, counts)
                if not module.ends_group():
                    return
                self._joined_step(self._gradients)
        self._since += 1
        module.take_step()

    @property
    def _alone(self) -> bool:
        """Whether a step sees one batch of one device."""
        return self._module.settings.accumulate == 1 and self._module.trainer.world_size == 1

    def _forward(self, batch: Batch) -> tuple[Tensor | None, list[Tensor]]:
        """Losses, and the features that they hang on where gradients are taken there."""
        module, network = self._module, self._module.network
        if self.balancer.backend != "feature":
            return None, module.losses(batch)
        assert isinstance(network, Network)
        features_NF = network.backbone(batch.inputs)
        outputs = {name: head(features_NF) for name, head in network.heads.items()}
        return features_NF, module.losses_of(outputs, batch)

    def _add_rows(self, gradients: Gradients, losses: Sequence[Tensor], counts: Sequence[float]) -> None:
        """One backward pass a task."""
        shared = list(gradients.roles.shared.values())
        present = [task for task, count in enumerate(counts) if count > 0]
        scaled = {task: self._scaled(losses[task]) for task in present}
        if self.balancer.backend == "torchjd" and present:
            rows = rows_of_torchjd(list(scaled.values()), shared)
            for at, task in enumerate(present):
                own = torch.autograd.grad(scaled[task], gradients.roles.own[task], retain_graph=True)
                gradients.add(task, [*(block[at] for block in rows), *own], losses[task], counts[task])
            return
        for task in present:
            wanted = shared + gradients.roles.own[task]
            retain = task != present[-1]
            found = torch.autograd.grad(scaled[task], wanted, retain_graph=retain, allow_unused=True)
            gradients.add(task, found, losses[task], counts[task])

    def _feature_step(
        self, roles: Roles, features_NF: Tensor, losses: Sequence[Tensor], counts: Sequence[float]
    ) -> None:
        """The Gramian of the gradients at the features decides, then one backward pass through the backbone."""
        module = self._module
        batch = FeatureBatch(roles, features_NF, losses, counts, several=module.trainer.world_size > 1)
        if not batch.present:
            return
        factors = [slope / self._divisor() for slope in self._slopes(batch.present, batch.losses_T)]
        gramian_TT = batch.differentiate(self._scaled, factors)
        step = module.step_info(batch.present, batch.losses_T[batch.present].cpu())
        weights_T = self._decide("", gramian_TT, step)
        batch.place(weights_T, weighted_heads=self.balancer.heads == "weighted")
        module.record.gradients(batch.present, gramian_TT, weights_T)
        module.record.weights(batch.present, weights_T.tolist())

    # one step

    def _joined_step(self, gradients: Gradients) -> None:
        """The gradients of all batches and devices, then the rule."""
        gradients.seal()
        if self._module.trainer.world_size > 1 and self.balancer.reduction == "jacobian":
            torch.distributed.all_reduce(gradients.buffer)
        present = gradients.finish()
        self._unscale(gradients)
        direction_P, weights_T = torch.zeros_like(gradients.rows_TP[0]), None
        if present:
            for task, slope in zip(present, self._slopes(present, gradients.losses_T), strict=True):
                gradients.scale_task(task, slope)
            direction_P, weights_T = self._direct(gradients, present)
        if self.balancer.heads == "weighted" and weights_T is not None:
            for weight, task in zip(weights_T.tolist(), present, strict=True):
                gradients.scale_own(task, weight)
        if self._module.trainer.world_size > 1 and self.balancer.reduction == "gradient":
            direction_P = gradients.average(direction_P)
            present = list(range(len(gradients.rows_TP)))
        if present:
            gradients.place(present, direction_P)
        gradients.clear()

    def _direct(self, gradients: Gradients, present: list[int]) -> tuple[Tensor, Tensor | None]:
        """The rule's direction, and its weights where it has any."""
        module = self._module
        everyone = len(present) == len(gradients.rows_TP)
        losses_T = gradients.losses_T if everyone else gradients.losses_T[present]
        step = module.step_info(present, losses_T.to("cpu", torch.float64, copy=True))
        rows_TP = gradients.rows_TP if everyone else gradients.rows_TP[present]
        gramian_TT = gramian(rows_TP)
        weights_T: Tensor | None
        if len(present) == 1:
            direction_P, weights_T = rows_TP[0], torch.ones(1, dtype=torch.float64)
        elif self.balancer.kind == "jacobian":
            found = self.balancer.directing(rows_TP, self._state(""), step)  # type: ignore[union-attr]
            direction_P, weights_T = found.direction_P, found.weights_T
        else:
            direction_P, weights_T = self._weighted(gradients, rows_TP, gramian_TT, step)
        self._note(present, gramian_TT, rows_TP, direction_P, weights_T)
        return direction_P, weights_T

    def _weighted(self, gradients: Gradients, rows_TP: Tensor, gramian_TT: Tensor, step: Any) -> tuple[Tensor, Tensor]:
        """`w J`, group by group of the rule's partition; the weights are means over the parameters."""
        if not self._groups:
            self._groups = self._partition(gradients)
        direction_P = torch.empty_like(rows_TP[0])
        mean_T = torch.zeros(len(rows_TP), dtype=torch.float64)
        for group in self._groups:
            inner_TT = gramian_TT if group.shows_all else gramian(rows_TP, group.shown)
            weights_T = self._decide(group.name, inner_TT, step)
            for columns in group.columns:
                torch.mv(rows_TP[:, columns].T, weights_T.to(rows_TP), out=direction_P[columns])
                mean_T += weights_T * (columns.stop - columns.start) / gradients.columns
        return direction_P, mean_T

    def _partition(self, gradients: Gradients) -> list[_Group]:
        shared = tuple(gradients.roles.shared)
        return [
            _Group(
                name=name,
                columns=gradients.columns_of(parameters),
                shown=gradients.columns_of(shown := self.balancer.shown(parameters)),
                shows_all=len(shown) == len(shared),
            )
            for name, parameters in self.balancer.partition(shared).items()
        ]

    def _decide(self, name: str, gramian_TT: Tensor, step: Any) -> Tensor:
        """The rule's weights of one group, equal on all devices; every `every` steps anew."""
        if self._reuses(step.positions):
            return torch.tensor([self._weights[name][task] for task in step.tasks], dtype=torch.float64)
        found = self.balancer.weighing(gramian_TT, self._state(name), step)  # type: ignore[union-attr]
        self._module.record.solver(residual=found.residual, failed=found.failed, dropped=found.dropped)
        weights_T = torch.from_numpy(np.ascontiguousarray(found.weights_T))
        if self._module.trainer.world_size > 1 and self.balancer.reduction == "jacobian":
            on_device = weights_T.to(self._module.device)
            torch.distributed.broadcast(on_device, 0)
            weights_T = on_device.cpu()
        self._weights[name] = dict(zip(step.tasks, weights_T.tolist(), strict=True))
        return weights_T

    def _note(
        self,
        present: Sequence[int],
        gramian_TT: Tensor,
        rows_TP: Tensor,
        direction_P: Tensor,
        weights_T: Tensor | None,
    ) -> None:
        record = self._module.record
        single = len(self._weights) <= 1 and weights_T is not None
        record.gradients(present, gramian_TT, weights_T if single else None)
        if weights_T is not None:
            record.weights(present, weights_T.tolist())
        if not single:
            inner_T = (rows_TP @ direction_P).double().cpu()
            norms_T = gramian_TT.diagonal().sqrt().cpu()
            record.direction(inner_T.numpy(), norms_T.numpy(), direction_P.norm().item())

    # between two decisions

    def _reuses(self, present: Sequence[int]) -> bool:
        """Whether the last decision's weights serve for these tasks."""
        names = [self._module.names[task] for task in present]
        known = bool(self._weights) and all(name in each for each in self._weights.values() for name in names)
        return self._since % self.balancer.every > 0 and known

    def _reuses_alone(self, present: Sequence[int]) -> bool:
        """Whether one weighted loss has the gradient: one batch of one device, one group of parameters."""
        return self._alone and len(self._weights) == 1 and self._reuses(present)

    def _reused_step(self, gradients: Gradients, losses: Sequence[Tensor], counts: Sequence[float]) -> None:
        """One backward pass of `sum_t w_t L_t`; a head's own gradient comes out `w_t` times too long."""
        present = [task for task, count in enumerate(counts) if count > 0]
        (weights,) = self._weights.values()
        weights_T = torch.tensor([weights[self._module.names[task]] for task in present], dtype=torch.float64)
        slopes = self._slopes(present, torch.stack(list(losses)).detach())
        total = torch.stack([losses[task] for task in present]).mul((weights_T * torch.tensor(slopes)).to(losses[0]))
        shared, own = list(gradients.roles.shared.values()), gradients.roles.own
        wanted = shared + [each for task in present for each in own[task]]
        found = list(torch.autograd.grad(self._scaled(total.sum()), wanted, retain_graph=True, allow_unused=True))
        divisor = self._divisor()
        for parameter, value in zip(shared, found, strict=False):
            parameter.grad = None if value is None else (value / divisor).to(parameter.dtype)
        del found[: len(shared)]
        for weight, slope, task in zip(weights_T.tolist(), slopes, present, strict=True):
            values, found = found[: len(own[task])], found[len(own[task]) :]
            factor = 1.0 if self.balancer.heads == "weighted" else 1.0 / weight if weight else 0.0
            if not weight and self.balancer.heads == "own":
                values = list(torch.autograd.grad(self._scaled(slope * losses[task]), own[task], retain_graph=True))
                factor = 1.0
            for parameter, value in zip(own[task], values, strict=True):
                parameter.grad = None if value is None else (value * (factor / divisor)).to(parameter.dtype)
        self._module.record.weights(present, weights_T.tolist())

    # losses before the rule

    def _slopes(self, present: Sequence[int], losses_T: Tensor) -> list[float]:
        """The derivative of each loss's transform: rows and heads are multiplied by it (the chain rule)."""
        if self.balancer.transform == "log":
            return [1.0 / (losses_T[task].item() + _LOG_EPS) for task in present]
        if self._log_scale is None:
            return [1.0] * len(present)
        scales_T = self._log_scale.detach().exp()
        slopes_T = torch.zeros_like(scales_T)
        at = list(present)
        slopes_T[at] = scales_T[at] * losses_T[at].to(scales_T) - 1.0  # d/ds (exp(s) L - s)
        self._log_scale.grad = slopes_T
        return scales_T[at].tolist()

    # mixed precision

    def _scaled(self, loss: Tensor) -> Tensor:
        scaler = self._module.scaler()
        return loss if scaler is None else scaler.scale(loss)

    def _unscale(self, gradients: Gradients) -> None:
        divisor = self._divisor()
        if divisor != 1.0:
            for task in range(len(gradients.rows_TP)):
                gradients.scale_task(task, 1.0 / divisor)

    def _divisor(self) -> float:
        scaler = self._module.scaler()
        return 1.0 if scaler is None else scaler.get_scale()

    def _state(self, name: str) -> State:
        if name not in self._states:
            self._states[name] = self.balancer.init(self._module.names)
        return self._states[name]
