"""BatchNorm statistics of the target's data, as work of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from transfuse.models.batch_norm import full_batches, has_batch_norm, reestimate
from transfuse.randomness import make_generator
from transfuse.training.plan import ClosedForm, Data, Plan


@dataclass(frozen=True, kw_only=True)
class MeasureStatistics(ClosedForm):
    """Running statistics of all BatchNorm layers, measured on the training data."""

    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan, whose network has them."""
        measure_statistics(plan.network, data)
        return plan


def measure_statistics(network: nn.Module, data: Data) -> Mapping[str, Any]:
    """Measures them in place, where the network has any; returns lines for the report."""
    if not has_batch_norm(network):
        return {}
    generator = make_generator(data.seed, "batch_norm")
    reestimate(network, network.modules(), full_batches(data.train.inputs, data.batch_size, generator))
    return {"batch_norm": "reestimate"}
