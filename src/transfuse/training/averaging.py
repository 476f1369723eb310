"""Averages of weights that are kept along a training: which steps give a snapshot, and how a snapshot enters.

What is kept is plain (a mapping of numbers and tensors), so that it travels with the state of a paused training. Means
are kept in float64 (float32 on MPS, which has no other): in float32 a thousand steps drift by 1e-6, and a recursion
with a decay near 1 stands still where its steps are smaller than the last digit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from transfuse.state_dict import batch_norm_statistics

Kept = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """The optimizer steps whose weights are snapshots: every `stride`-th one counted back from the end.

    Attributes:
        total: steps of the training; the end is a snapshot.
        stride: steps between two snapshots, >= 1.
        first: no step before this one, counted from 1, is a snapshot.

    Example:
        >>> snapshots = Snapshots(total=10, stride=3, first=4)
        >>> [step for step in range(1, 11) if snapshots.due(step)], snapshots.count
        ([4, 7, 10], 3)
    """

    total: int
    stride: int
    first: float = 1

    def due(self, step: int) -> bool:
        """Whether the weights after `step` steps are a snapshot."""
        return step >= self.first and (self.total - step) % self.stride == 0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(self.due, range(1, self.total + 1)))


class Average(ABC):
    """How snapshots are summed up: `kept` holds `count`, and `mean` by key; empty before the first snapshot."""

    @torch.no_grad()
    def update(self, kept: Kept, values: Mapping[str, Tensor]) -> None:
        """Takes in one snapshot, in place.

        Args:
            kept: what earlier calls made of it.
            values: the snapshot's tensors by key; not kept, and not changed.
        """
        if not kept:
            kept.update(self.begin({key: _widened(value).clone() for key, value in values.items()}))
            return
        kept["count"] += 1
        self.take(kept, {key: _widened(value) for key, value in values.items()})

    def begin(self, mean: dict[str, Tensor]) -> Kept:
        """What is kept of the first snapshot, which is the mean."""
        return {"count": 1, "mean": mean}

    @abstractmethod
    def take(self, kept: Kept, values: Mapping[str, Tensor]) -> None:
        """After each later one, in the means' types; `count` includes it."""


@final
class RunningMean(Average):
    """m <- m + (x - m) / n.

    Example:
        >>> kept: Kept = {}
        >>> for number in (1.0, 2.0, 6.0):
        ...     RunningMean().update(kept, {"w": torch.tensor(number)})
        >>> kept["mean"]["w"]
        tensor(3., dtype=torch.float64)
    """

    def take(self, kept: Kept, values: Mapping[str, Tensor]) -> None:
        """One term more."""
        for key, value in values.items():
            kept["mean"][key].lerp_(value, 1 / kept["count"])


@final
@dataclass(frozen=True, kw_only=True)
class ExponentialMean(Average):
    """m <- decay m + (1 - decay) x, from the first snapshot on.

    Attributes:
        decay: in [0, 1).
    """

    decay: float

    def take(self, kept: Kept, values: Mapping[str, Tensor]) -> None:
        """One step of the recursion."""
        for key, value in values.items():
            kept["mean"][key].lerp_(value, 1 - self.decay)


@final
@dataclass(frozen=True, kw_only=True)
class Moments(Average):
    """The running mean; `spread`, the sum of squared distances to it; `deviations`, the last snapshots' x - m.

    The spread follows Welford: no difference of two large squares is taken. Deviations are kept in float32.

    Attributes:
        rank: how many deviations are kept.
    """

    rank: int

    def begin(self, mean: dict[str, Tensor]) -> Kept:
        """The spread is zero, as is the first deviation."""
        spread = {key: torch.zeros_like(value) for key, value in mean.items()}
        return {**super().begin(mean), "spread": spread, "deviations": [_narrowed(spread)]}

    def take(self, kept: Kept, values: Mapping[str, Tensor]) -> None:
        """One snapshot more: m' = m + (x - m) / n, spread <- spread + (x - m) (x - m'), deviation x - m'."""
        mean, deviation = kept["mean"], {}
        for key, value in values.items():
            before = value - mean[key]
            mean[key].lerp_(value, 1 / kept["count"])
            deviation[key] = value - mean[key]
            kept["spread"][key].addcmul_(before, deviation[key])
        kept["deviations"] = [*kept["deviations"], _narrowed(deviation)][-self.rank :]


def current_values(network: nn.Module, keys: frozenset[str]) -> dict[str, Tensor]:
    """The tensors of `keys` as a snapshot: BatchNorm's variances as second moments v + m^2.

    Moments can be averaged, and give the variance back by the law of total variance; see `averaged_state`.
    """
    values = {key: value for key, value in network.state_dict().items() if key in keys}
    for mean, variance in batch_norm_statistics(values).items():
        values[variance] = _widened(values[variance]) + _widened(values[mean]).square()
    return values


def averaged_state(mean: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State-dict entries of an average of `current_values`, in the types of `like`; shares no storage with it."""
    state = dict(mean)
    for key, variance in batch_norm_statistics(mean).items():
        # var = E[v + m^2] - E[m]^2
        state[variance] = (mean[variance] - mean[key].square()).clamp_min(0)
    return {key: value.to("cpu", like[key].dtype, copy=True) for key, value in state.items()}


def on_device(kept: Kept, device: torch.device) -> Kept:
    """The same with all tensors on `device`."""
    return {name: _moved(value, device) for name, value in kept.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(each, device) for key, each in value.items()}
    return [_moved(each, device) for each in value] if isinstance(value, list) else value


def _widened(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)


def _narrowed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(torch.float32, copy=True) for key, value in values.items()}
