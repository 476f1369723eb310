"""The way back from trained weights to those a training started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transfuse.metrics import scores
from transfuse.metrics.names import higher_is_better
from transfuse.models.predict import predict
from transfuse.training.plan import Data, Finish
from transfuse.training.statistics import measure_statistics


@dataclass(frozen=True, kw_only=True)
class Interpolate(Finish):
    """`(1 - c) w0 + c w`, c by the selection metric on validation data; among equals the largest.

    Attributes:
        starts: state dict key -> w0.
        coefficients: c that are tried.
    """

    starts: Mapping[str, Tensor]
    coefficients: tuple[float, ...]

    @property
    def looks(self) -> int:
        """One a coefficient."""
        return len(self.coefficients)

    @torch.no_grad()
    def apply(self, network: nn.Module, data: Data) -> Mapping[str, Any]:
        """Leaves the network at the best c."""
        trained = {key: value.clone() for key, value in network.state_dict().items()}
        starts = {key: value for key, value in self.starts.items() if key in trained and value.is_floating_point()}
        tried: list[dict[str, float]] = []
        best: tuple[float, dict[str, Tensor]] | None = None
        for c in sorted(self.coefficients, reverse=True):
            mixed = {key: torch.lerp(value, trained[key], c) for key, value in starts.items()}
            network.load_state_dict(trained | mixed)
            if c < 1:
                measure_statistics(network, data)
            score = self._score(network, data)
            tried.append({"c": c, data.metric: score})
            rank = score if higher_is_better(data.metric) else -score
            if best is None or rank > best[0]:
                best = (rank, {key: value.clone() for key, value in network.state_dict().items()})
                taken = c
        assert best is not None, "there is a coefficient"
        network.load_state_dict(best[1])
        return {"interpolation": {"taken": taken, "tried": tried}}

    def _score(self, network: nn.Module, data: Data) -> float:
        """Mean over tasks."""
        outputs = predict(network, data.validation.inputs)
        found = [
            scores(task, outputs[task.name], data.validation.targets[task.name])[data.metric] for task in data.tasks
        ]
        return sum(found) / len(found)
