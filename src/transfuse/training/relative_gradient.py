"""How much the target wants each group of layers changed: the gradient's norm over the weights'."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from transfuse.models.network import Grouped, head_names
from transfuse.models.predict import evaluating
from transfuse.training.losses import task_losses
from transfuse.training.plan import ClosedForm, Data, ParameterGroup, Plan


def relative_gradients(network: nn.Module, data: Data) -> dict[str, float]:
    """Group -> `|g| / |w|`, g the gradient of the mean training loss in evaluation mode; heads are left out."""
    assert isinstance(network, Grouped)
    heads = head_names(network)
    parameters = dict(network.named_parameters())
    wanted = [name for name in parameters if name not in heads]
    gradients = {name: torch.zeros_like(parameters[name]) for name in wanted}
    flags = {name: value.requires_grad for name, value in parameters.items()}
    total = len(data.train)
    network.requires_grad_(True)
    with evaluating(network):
        for start in range(0, total, 1024):
            index = torch.arange(start, min(start + 1024, total))
            part = data.train.select(index)
            loss = sum(task_losses(network, data.tasks, network(part.inputs), part.targets), torch.zeros(()))
            found = torch.autograd.grad(loss * (len(part) / total), [parameters[name] for name in wanted])
            for name, gradient in zip(wanted, found, strict=True):
                gradients[name] += gradient
    for name, value in parameters.items():
        value.requires_grad_(flags[name])

    def norm(values: list[torch.Tensor]) -> float:
        return float(torch.stack([value.detach().norm() for value in values]).norm())

    relative = {}
    for group, names in network.groups()[:-1]:
        size = norm([parameters[name] for name in names])
        relative[group] = norm([gradients[name] for name in names]) / size if size else 0.0
    return relative


@dataclass(frozen=True, kw_only=True)
class ByRelativeGradient(ClosedForm):
    """Trains the group with the largest relative gradient, or all at rates in proportion to theirs.

    Attributes:
        pick: one group; else all.
    """

    pick: bool

    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan with these groups in its phases."""
        network = plan.network
        assert isinstance(network, Grouped)
        relative = relative_gradients(network, data)
        largest = max(relative.values())
        chosen = max(relative, key=lambda group: relative[group])
        *backbone, (_, heads) = network.groups()
        groups = []
        for name, names in backbone:
            if self.pick and name != chosen:
                groups.append(ParameterGroup(names=tuple(names), trainable=False, batch_norm="eval"))
            else:
                factor = 1.0 if self.pick or not largest else relative[name] / largest
                groups.append(ParameterGroup(names=tuple(names), lr_factor=factor))
        groups.append(ParameterGroup(names=tuple(heads)))
        phases = tuple(replace(phase, groups=tuple(groups)) for phase in plan.phases)
        report = {**plan.report, "relative_gradient": relative}
        return replace(plan, phases=phases, report={**report, "picked_group": chosen} if self.pick else report)
