"""Learning from a teacher's logits, as parts of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transfuse.training.penalties import distillation_loss
from transfuse.training.plan import ClosedForm, Data, Penalty, Plan
from transfuse.training.probe import ProbeHeads


class Teacher(Penalty):
    """`weight sum_t T^2 KL(teacher / T || student / T)` on every example of a batch, labelled or not.

    Args:
        network: the teacher, frozen here.
        tasks: whose logits are taught.
        weight: factor.
        temperature: T.
    """

    def __init__(self, network: nn.Module, tasks: tuple[str, ...], weight: float, temperature: float) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.layers = tuple(f"heads.{task}" for task in tasks)
        self.tasks, self.weight, self.temperature = tasks, weight, temperature

    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term."""
        self.network.eval()
        with torch.no_grad():
            taught = self.network(inputs)
        losses = [
            distillation_loss(seen[layer].float(), taught[task].float(), self.temperature)
            for layer, task in zip(self.layers, self.tasks, strict=True)
        ]
        return self.weight * torch.stack(losses).sum()


@dataclass(frozen=True, kw_only=True)
class FitTeacher(ClosedForm):
    """Gives a teacher heads for the target: linear probes on its features.

    Attributes:
        network: the teacher; changed in place.
    """

    network: nn.Module

    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan, with a line on the teacher."""
        probed = ProbeHeads().apply(Plan(network=self.network, phases=()), data)
        self.network.requires_grad_(False)
        return replace(plan, report={**plan.report, "teacher_probe": probed.report["probe"]})
