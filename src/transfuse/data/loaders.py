"""Batches of examples that lie in memory: whole batches by index, no per-example work, no worker processes.

`batch_size` counts the examples of all ranks together. Rank r takes every `world`-th example of each global batch, so
that several ranks see exactly the joined batches of one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from transfuse.randomness import make_generator
from transfuse.types import DataError, HyperparameterError, Split

_CHUNK = 32  # batches that are gathered at once: 3 index operations for 32 batches instead of for one


class Batch(NamedTuple):
    """Examples that one step sees.

    Attributes:
        inputs: (N, *input shape).
        targets: task name -> (N,) or (N, C).
        ids: (N,) int64.
    """

    inputs: Tensor
    targets: dict[str, Tensor]
    ids: Tensor


class TrainingBatches:
    """Shuffled batches; each iteration gives the rest of one epoch, the next iteration the next epoch.

    The order of epoch e depends on (seed, e) alone. A last partial batch is kept, trimmed to a multiple of `world`, and
    dropped where a rank would get a single example of it and there are other batches (BatchNorm needs two).

    Args:
        split: the examples.
        batch_size: examples of one batch over all ranks together; a multiple of `world`.
        seed: of the order.
        rank: of this process, in [0, world).
        world: number of processes.
        start: batches of the whole training that were already used; may lie in mid-epoch.
        stop: batch of the whole training before which to stop; None for never.
        device: where batches are needed.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        stop: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._split = split
        self._seed = seed
        self._rank = rank
        self._world = world
        self._position = start
        self._stop = stop
        self._device = device
        self._batch_size = batch_size
        self._examples = examples_per_epoch(len(split), batch_size, world)

    @property
    def per_epoch(self) -> int:
        """Number of batches in one epoch."""
        return -(-self._examples // self._batch_size)

    def state_dict(self) -> dict[str, int]:
        """The number of batches of finished iterations."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where another one was."""
        self._position = state["position"]

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = divmod(self._position, self.per_epoch)
        end = (epoch + 1) * self.per_epoch
        if self._stop is not None:
            end = min(end, self._stop)
        share = self._batch_size // self._world
        last = end - epoch * self.per_epoch
        mine = self._order(epoch)[first * share : last * share]
        for at in range(0, len(mine), _CHUNK * share):
            yield from self._gather(mine[at : at + _CHUNK * share], share)
        self._position = end

    def _order(self, epoch: int) -> Tensor:
        order = torch.randperm(len(self._split), generator=make_generator(self._seed, "epoch", epoch))
        # the batch size is a multiple of the world: each `world`-th of all is each `world`-th of each batch
        return order[self._rank : self._examples : self._world]

    def _gather(self, at: Tensor, share: int) -> Iterator[Batch]:
        chunk = self._split.select(at)
        inputs = torch.split(chunk.inputs.to(self._device), share)
        ids = torch.split(chunk.ids.to(self._device), share)
        targets = {name: torch.split(values.to(self._device), share) for name, values in chunk.targets.items()}
        for index in range(len(ids)):
            yield Batch(inputs[index], {name: values[index] for name, values in targets.items()}, ids[index])


class EvaluationBatches:
    """All examples in order, each on exactly one rank; every rank gets the same number of batches.

    The last batch of a rank may hold no example. Batches are views where the examples are on `device` already.

    Args:
        split: the examples.
        batch_size: examples of one batch over all ranks together.
        rank: of this process, in [0, world).
        world: number of processes.
        device: where batches are needed.
    """

    def __init__(
        self, split: Split, *, batch_size: int, rank: int = 0, world: int = 1, device: torch.device | None = None
    ) -> None:
        self._split = split
        self._batch_size = batch_size
        self._rank = rank
        self._world = world
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        split, size = self._split, len(self._split)
        for start in range(0, size, self._batch_size):
            at = slice(min(start + self._rank, size), min(start + self._batch_size, size), self._world)
            targets = {name: values[at].to(self._device) for name, values in split.targets.items()}
            yield Batch(split.inputs[at].to(self._device), targets, split.ids[at].to(self._device))


def examples_per_epoch(size: int, batch_size: int, world: int = 1) -> int:
    """How many of `size` examples one epoch of `TrainingBatches` uses."""
    if batch_size % world != 0:
        raise HyperparameterError(
            f"`batch_size` should be a multiple of the number of devices ({world}). Found `batch_size = {batch_size}`."
        )
    full, rest = size - size % batch_size, size % batch_size
    rest -= rest % world
    if full and rest == world:
        rest = 0
    if full + rest == 0:
        raise DataError(f"The training split has {size} examples, too few for {world} devices.")
    return full + rest
