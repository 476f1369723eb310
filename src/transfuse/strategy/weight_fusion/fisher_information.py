"""The diagonal of a network's Fisher information, example by example.

Dimensions in tensor names: N examples, C outputs of a task, R rows whose squared gradients are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from transfuse.types import Split, Task

Labels = Literal["expected", "sampled", "empirical"]
_Squares = Callable[[Tensor, Mapping[str, Tensor]], Mapping[str, Tensor]]
_ELEMENTS = 2**24  # of one gradient a batch, about


@torch.no_grad()
def fisher_diagonal(
    network: nn.Module,
    tasks: Sequence[Task],
    split: Split,
    *,
    labels: Labels = "expected",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a network's parameters: `F = mean_x E_y (d log p(y | x) / d parameters)^2`.

    The square is that of one example's gradient, so the batch size does not matter. Tasks are independent given the
    input: their information adds up. p is a softmax for classification, independent labels for multilabel, and a normal
    density with the task's `scale` as deviation for regression.

    Args:
        network: in the mode to be measured, evaluation as a rule; maps (N, ...) to a dict task -> (N, C). Not changed.
        tasks: what to measure; the network has a head for each.
        split: examples; their targets are read by `empirical` alone.
        labels: what y is: `expected`, the exact expectation under the network's own p; `sampled`, one draw from it;
            `empirical`, the data's label (a missing one informs about nothing).
        generator: for `sampled`.
        batch_size: examples at a time; None: what fits some hundred MB.

    Returns:
        Key of every parameter, tied ones under each name -> F of its shape.

    Example:
        >>> task = Task(name="y", kind="regression", outputs=1, scale=(2.0,))
        >>> class Line(nn.Linear):
        ...     def forward(self, inputs):
        ...         return {"y": super().forward(inputs)}
        >>> inputs = torch.tensor([[2.0], [4.0]])  # d log p / d w = (y - f) x / scale^2
        >>> data = Split(inputs=inputs, targets={"y": torch.zeros(2, 1)}, ids=torch.arange(2))
        >>> fisher_diagonal(Line(1, 1), [task], data)["weight"]
        tensor([[2.5000]])

    Reference:
        Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging", 2111.09832, sec. 3.2.
    """
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    size = batch_size or max(1, min(64, _ELEMENTS // max(1, sum(value.numel() for value in parameters.values()))))
    squares = _chosen(network, parameters)
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
    for inputs, factors in _batches(network, tasks, split, labels, generator, size):
        for name, square in squares(inputs, factors).items():
            total[name] += square
    owners = {id(value): name for name, value in network.named_parameters()}
    return {
        name: (total[owners[id(value)]] / len(split)).to(value.dtype)
        for name, value in network.named_parameters(remove_duplicate=False)
    }


def score_factors(
    task: Task, outputs_NC: Tensor, targets: Tensor, *, labels: Labels, uniform_NC: Tensor | None = None
) -> Tensor:
    """Rows s whose outer products sum up to `E_y[g g^T]`, g = d log p(y | outputs) / d outputs, of every example.

    Rows pull back through the network one by one: `F = sum_r (J^T s_r)^2`. Classification: `sqrt(p_c) (e_c - p)` for
    every class c. Multilabel: `sqrt(p_c (1 - p_c)) e_c` for every label. Regression: `e_c / scale_c`. Where y is one
    label there is one row, g itself.

    Args:
        task: what is predicted.
        outputs_NC: (N, C) logits, or values in the targets' own units.
        targets: as in `Split`.
        labels: see `fisher_diagonal`.
        uniform_NC: (N, C) in (0, 1), for `sampled`.

    Returns:
        (N, R, C), R = C for `expected` and 1 otherwise.

    Example:
        >>> task = Task(name="y", kind="multilabel", outputs=1)
        >>> score_factors(task, torch.zeros(1, 1), torch.ones(1, 1), labels="expected")
        tensor([[[0.5000]]])
    """
    if labels == "sampled":
        assert uniform_NC is not None, "drawn by the caller"
        targets = _drawn(task, outputs_NC, uniform_NC)
    num_outputs = outputs_NC.shape[1]
    eye_CC = torch.eye(num_outputs, dtype=outputs_NC.dtype, device=outputs_NC.device)
    if task.kind == "classification":
        p_NC = outputs_NC.softmax(1)
        if labels == "expected":
            # g_c = e_c - p with probability p_c
            return p_NC.sqrt()[:, :, None] * (eye_CC - p_NC[:, None, :])
        scores_NC = (eye_CC[targets.clamp_min(0)] - p_NC) * (targets >= 0)[:, None]
        return scores_NC[:, None, :]
    if task.kind == "multilabel":
        p_NC = outputs_NC.sigmoid()
        if labels == "expected":
            # Var(y_c) = p_c (1 - p_c)
            return (p_NC * (1 - p_NC)).sqrt()[:, :, None] * eye_CC
        return (targets - p_NC).nan_to_num(0.0)[:, None, :]
    scale_C = _scale(task, outputs_NC)
    if labels == "expected":
        return (eye_CC / scale_C).expand(len(outputs_NC), num_outputs, num_outputs)
    # g = (y - f) / scale^2
    return ((targets - outputs_NC) / scale_C.square()).nan_to_num(0.0)[:, None, :]


def _drawn(task: Task, outputs_NC: Tensor, uniform_NC: Tensor) -> Tensor:
    """Targets from the network's own distribution."""
    if task.kind == "classification":  # the largest of log p + Gumbel noise
        return (outputs_NC - (-uniform_NC.log()).log()).argmax(1)
    if task.kind == "multilabel":
        return (uniform_NC < outputs_NC.sigmoid()).to(outputs_NC.dtype)
    return outputs_NC + _scale(task, outputs_NC) * 2**0.5 * torch.erfinv(2 * uniform_NC - 1)


def _scale(task: Task, outputs_NC: Tensor) -> Tensor:
    return outputs_NC.new_tensor(task.scale or (1.0,) * outputs_NC.shape[1])


def _batches(
    network: nn.Module,
    tasks: Sequence[Task],
    split: Split,
    labels: Labels,
    generator: torch.Generator | None,
    size: int,
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Inputs and the factors of every task; chance is drawn once, so that no batch size changes it."""
    shapes = {task.name: (len(split), task.outputs) for task in tasks}
    drawn = {
        name: torch.rand(shape, generator=generator).clamp(1e-7, 1 - 1e-7) if labels == "sampled" else None
        for name, shape in shapes.items()
    }
    for start in range(0, len(split), size):
        piece = slice(start, start + size)
        outputs = network(split.inputs[piece])
        yield (
            split.inputs[piece],
            {
                task.name: score_factors(
                    task,
                    outputs[task.name],
                    split.targets[task.name][piece],
                    labels=labels,
                    uniform_NC=None if (uniform_NC := drawn[task.name]) is None else uniform_NC[piece],
                )
                for task in tasks
            },
        )


def _chosen(network: nn.Module, parameters: Mapping[str, Tensor]) -> _Squares:
    """Vectorized over examples; one by one from the first batch on that vmap cannot take."""
    vectorized, looped = _vectorized(network, parameters), _looped(network, parameters)
    works = True

    def squares(inputs: Tensor, factors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        nonlocal works
        if works:
            try:
                return vectorized(inputs, factors)
            except RuntimeError:
                works = False
        return looped(inputs, factors)

    return squares


def _vectorized(network: nn.Module, parameters: Mapping[str, Tensor]) -> _Squares:
    def of_example(example: Tensor, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        def outputs(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = functional_call(network, dict(values), (example[None],))
            return {task: found[task][0] for task in factors}

        found, pull_back = vjp(outputs, dict(parameters))[:2]
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for task, rows_RC in factors.items():
            for row_C in rows_RC.unbind():
                zeros = {name: torch.zeros_like(value) for name, value in found.items()}
                (gradients,) = pull_back({**zeros, task: row_C})
                total = {name: total[name] + gradients[name].square() for name in total}
        return total

    def squares(inputs: Tensor, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no batching rule
            found_N: dict[str, Tensor] = vmap(of_example)(inputs, dict(factors))
        return {name: value.sum(0, dtype=torch.float64) for name, value in found_N.items()}

    return squares


def _looped(network: nn.Module, parameters: Mapping[str, Tensor]) -> _Squares:
    @torch.enable_grad()
    def squares(inputs: Tensor, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
        for index in range(len(inputs)):
            found = functional_call(network, leaves, (inputs[index : index + 1],))
            for task, rows_NRC in factors.items():
                for row_C in rows_NRC[index]:
                    gradients = torch.autograd.grad(
                        found[task][0], list(leaves.values()), row_C, retain_graph=True, allow_unused=True
                    )
                    for name, gradient in zip(leaves, gradients, strict=True):
                        total[name] += 0.0 if gradient is None else gradient.detach().square()
        return total

    return squares
