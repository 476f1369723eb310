"""The tasks' gradients with respect to the shared parameters: rows of a Jacobian, and their Gramian.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.types import MissingExtraError, TransfuseError

_CHUNK = 1 << 16  # columns that are cast to float64 at once
_ROWS = 2  # of a Gramian that are computed at once


class DetachedTaskError(TransfuseError):
    """A task's loss does not depend on the shared parameters."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which parameters the tasks share.

    Attributes:
        shared: name -> parameter, of those that the losses of at least two tasks reach.
        own: for each task, those that its loss alone reaches.
    """

    shared: dict[str, nn.Parameter]
    own: tuple[list[nn.Parameter], ...]

    @classmethod
    def of(cls, network: nn.Module, losses: Sequence[Tensor], tasks: Sequence[str]) -> Roles:
        """Follows the graph of each loss back to the parameters that require gradients.

        Raises:
            DetachedTaskError: a loss reaches no shared parameter.
        """
        reached = [_leaves(loss) for loss in losses]
        parameters = dict(network.named_parameters())
        shared = {
            name: parameter
            for name, parameter in parameters.items()
            if sum(id(parameter) in leaves for leaves in reached) > min(1, len(losses) - 1)
        }
        ids = {id(parameter) for parameter in shared.values()}
        for task, leaves in zip(tasks, reached, strict=True):
            if not leaves & ids:
                raise DetachedTaskError(
                    f"The loss of task {task} does not depend on any parameter that tasks share. "
                    f"Does its head detach its input, or is the trunk frozen?"
                )
        own = tuple([each for each in parameters.values() if id(each) in leaves - ids] for leaves in reached)
        return cls(shared=shared, own=own)


def _leaves(loss: Tensor) -> set[int]:
    """`id` of every leaf tensor that `loss` was computed from."""
    found: set[int] = set()
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # only nodes that accumulate gradients have it
        if variable is not None:
            found.add(id(variable))
        stack += [parent for parent, _ in node.next_functions]
    return found


class Gradients:
    """The Jacobian (T, P) of one optimizer step and each task's own gradients, in one buffer that is used again.

    Rows are sums over batches and devices of `count_t * gradient_t`; `finish` divides by the counts, so that a row is
    the gradient of the mean over all labelled examples, however they were spread.

    Args:
        roles: shared and own parameters.
        device: of the buffer.
    """

    def __init__(self, roles: Roles, device: torch.device) -> None:
        self.roles = roles
        tasks, shared = len(roles.own), list(roles.shared.values())
        self.columns = sum(each.numel() for each in shared)
        sizes = [sum(each.numel() for each in own) for own in roles.own]
        dtype = torch.float64 if any(each.dtype == torch.float64 for each in shared) else torch.float32
        self.buffer = torch.zeros(tasks * self.columns + sum(sizes) + 2 * tasks, dtype=dtype, device=device)
        flat, *own, self.counts_T, self.losses_T = torch.split(
            self.buffer, [tasks * self.columns, *sizes, tasks, tasks]
        )
        self.rows_TP = flat.view(tasks, self.columns)
        self._row_views = [_views(row, shared) for row in self.rows_TP]
        self._own_views = [_views(part, parameters) for part, parameters in zip(own, roles.own, strict=True)]
        self._own = own
        self._counts, self._losses = self.counts_T.unbind(), self.losses_T.unbind()
        self.clear()

    def clear(self) -> None:
        """Forgets the last step; rows are forgotten when they are first written."""
        self.counts_T.zero_()
        self.losses_T.zero_()
        self._fresh = [True] * len(self._own)

    def add(self, task: int, gradients: Sequence[Tensor | None], loss: Tensor, count: float) -> None:
        """Adds one task's gradients of one batch.

        Args:
            task: its position.
            gradients: of the shared parameters, then of the task's own; None is 0.
            loss: the task's mean loss over the batch's labelled examples.
            count: their number, or 1 where there is no other batch.
        """
        views = self._row_views[task] + self._own_views[task]
        if self._fresh[task]:
            _copy(views, gradients, count)
        else:
            _add(views, gradients, count)
        self._fresh[task] = False
        self._counts[task].add_(count)
        self._losses[task].add_(loss.detach(), alpha=count)

    def seal(self) -> None:
        """Zeros the rows of tasks that no batch had labels for, before devices add theirs up."""
        for task, fresh in enumerate(self._fresh):
            if fresh:
                self.rows_TP[task].zero_()
                self._own[task].zero_()

    def finish(self) -> list[int]:
        """Sums become means; returns the tasks that had labels."""
        counts = self.counts_T.tolist()
        for task, count in enumerate(counts):
            if count not in (0.0, 1.0):
                self.rows_TP[task] /= count
                self._own[task] /= count
                self.losses_T[task] /= count
        return [task for task, count in enumerate(counts) if count > 0]

    def scale_task(self, task: int, factor: float) -> None:
        """Multiplies all of one task's gradients."""
        if factor == 1.0:
            return
        self.rows_TP[task] *= factor
        self._own[task] *= factor

    def scale_own(self, task: int, factor: float) -> None:
        """Multiplies the gradients of one task's own parameters."""
        self._own[task] *= factor

    def average(self, direction_P: Tensor) -> Tensor:
        """The mean over devices of their own directions, and of the tasks' own gradients."""
        own = self.buffer[self.rows_TP.numel() : -2 * len(self._own)]
        joined = torch.cat([direction_P, own])
        torch.distributed.all_reduce(joined)
        joined /= torch.distributed.get_world_size()
        own.copy_(joined[len(direction_P) :])
        return joined[: len(direction_P)]

    def place(self, present: Sequence[int], direction_P: Tensor) -> None:
        """A direction, and the own gradients of the tasks at `present`, as `.grad`: views where the type allows."""
        shared = list(self.roles.shared.values())
        pairs = list(zip(shared, _views(direction_P, shared), strict=True))
        for task in present:
            pairs += zip(self.roles.own[task], self._own_views[task], strict=True)
        for parameter, value in pairs:
            parameter.grad = value if value.dtype == parameter.dtype else value.to(parameter.dtype)

    def columns_of(self, names: Sequence[str]) -> list[slice]:
        """Where these shared parameters lie among the P columns, neighbours joined."""
        wanted, start = set(names), 0
        found: list[slice] = []
        for name, parameter in self.roles.shared.items():
            end = start + parameter.numel()
            if name in wanted:
                if found and found[-1].stop == start:
                    found[-1] = slice(found[-1].start, end)
                else:
                    found.append(slice(start, end))
            start = end
        return found


def rows_of_torchjd(losses: list[Tensor], shared: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """The same rows by the library's engine, one backward pass a row: one block (T, *shape) a parameter."""
    try:
        from torchjd.autojac import jac
    except ImportError as error:
        raise MissingExtraError(
            "`gradient.backend = torchjd` needs the package torchjd. Install it with: pip install 'transfuse[mtl]'"
        ) from error
    rows: tuple[Tensor, ...] = jac(losses, shared, retain_graph=True, parallel_chunk_size=1)
    return rows


def gramian(rows_TP: Tensor, columns: Sequence[slice] = (slice(None),)) -> Tensor:
    """`J J^T` (T, T) of some columns in float64, by chunks of them: no second copy of the Jacobian."""
    tasks = len(rows_TP)
    upper_TT = torch.zeros(tasks, tasks, dtype=torch.float64, device=rows_TP.device)
    for each in columns:
        for chunk in torch.split(rows_TP[:, each], _CHUNK, dim=1):
            exact = chunk.double()
            # a few rows at a time with themselves and those after them: half of the products
            for at in range(0, tasks, _ROWS):
                upper_TT[at : at + _ROWS, at:].addmm_(exact[at : at + _ROWS], exact[at:].T)
    return upper_TT.triu() + upper_TT.triu(1).T


def _views(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    parts = torch.split(flat, [each.numel() for each in parameters])
    return [part.view(each.shape) for part, each in zip(parts, parameters, strict=True)]


def _copy(views: list[Tensor], gradients: Sequence[Tensor | None], factor: float) -> None:
    torch._foreach_copy_(
        views, [torch.zeros_like(view) if each is None else each for view, each in zip(views, gradients, strict=True)]
    )
    if factor != 1.0:
        torch._foreach_mul_(views, factor)


def _add(views: list[Tensor], gradients: Sequence[Tensor | None], factor: float) -> None:
    there = [(view, each) for view, each in zip(views, gradients, strict=True) if each is not None]
    targets, values = [view for view, _ in there], [each.to(view.dtype) for view, each in there]
    torch._foreach_add_(targets, values, alpha=factor)
