"""The linear probe: the head's optimum on fixed features, to convergence.

Dimensions in tensor names: N examples, F features, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import Tensor

from transfuse.models.features import features_of, require_network
from transfuse.models.network import Head
from transfuse.training.plan import ClosedForm, Data, Plan
from transfuse.types import DataError, Task

PENALTIES = tuple(float(10.0**power) for power in range(-4, 5))
_GRADIENT = 1e-6
_NEWTON, _NEWTON_STEPS = 600, 20  # parameters up to which the last steps are Newton's, and how many

Array = NDArray[np.float64]
Loss = Callable[[Array], tuple[float, Array]]  # (N, C) outputs -> the summed loss, and its gradient (N, C)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted linear map `x W^T + b`.

    Attributes:
        weight_CF: W.
        bias_C: b.
        objective: `c * sum loss + 1/2 |W|^2` there, of standardized features where they were standardized.
        gradient_norm: of the objective.
    """

    weight_CF: Array
    bias_C: Array
    objective: float
    gradient_norm: float

    def __call__(self, features_NF: Array) -> Array:
        """(N, C)."""
        outputs_NC: Array = features_NF @ self.weight_CF.T + self.bias_C
        return outputs_NC


def fit_probe(
    features_NF: Array, targets: Array, *, kind: str, outputs: int, c: float, start: Probe | None = None
) -> Probe:
    """Min over W, b of `c * sum_i loss_i + 1/2 |W|^2`; the bias is not penalized.

    classification: cross-entropy; multilabel: sum over labels of the logistic loss; both in float64 by L-BFGS, and by
    Newton steps where there are few parameters, until the gradient's norm is below 1e-6 (or no step improves).
    regression: squared error, in closed form (ridge).

    Args:
        features_NF: (N, F).
        targets: (N,) class indices, (N, C) zeros and ones, or (N, C) values.
        kind: `classification`, `multilabel` or `regression`.
        outputs: C.
        c: > 0, weight of the data against the penalty.
        start: where to begin; zeros by default.

    Example:
        >>> features_NF = np.array([[-1.0], [1.0]])
        >>> probe = fit_probe(features_NF, np.array([0, 1]), kind="classification", outputs=2, c=1.0)
        >>> bool((probe(features_NF).argmax(1) == [0, 1]).all())
        True
    """
    if kind == "regression":
        return _ridge(features_NF, targets, c)
    loss = _cross_entropy(targets.astype(np.int64)) if kind == "classification" else _logistic(targets)
    num_features = features_NF.shape[1]

    def objective(flat: Array) -> tuple[float, Array]:
        weight_CF, bias_C = flat[:-outputs].reshape(outputs, num_features), flat[-outputs:]
        value, slope_NC = loss(features_NF @ weight_CF.T + bias_C)
        gradient_CF = c * slope_NC.T @ features_NF + weight_CF
        gradient = np.concatenate([gradient_CF.ravel(), c * slope_NC.sum(0)])
        return c * value + 0.5 * float((weight_CF**2).sum()), gradient

    first = np.zeros(outputs * (num_features + 1))
    if start is not None:
        first = np.concatenate([start.weight_CF.ravel(), start.bias_C])
    small = first.size <= _NEWTON
    tolerance = max(_GRADIENT, 1e-3 * c) if small else _GRADIENT
    found = minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "maxcor": 20, "gtol": tolerance / first.size**0.5, "ftol": 0.0},
    ).x
    if small:
        found = _polished(found, objective, lambda flat: _hessian(flat, features_NF, kind, outputs, c))
    value, gradient = objective(found)
    return Probe(
        weight_CF=found[:-outputs].reshape(outputs, num_features),
        bias_C=found[-outputs:],
        objective=value,
        gradient_norm=float(np.linalg.norm(gradient)),
    )


def _polished(
    flat: Array, objective: Callable[[Array], tuple[float, Array]], hessian: Callable[[Array], Array]
) -> Array:
    """Newton steps until the gradient's norm is below 1e-6, or no step makes it smaller."""
    size = float(np.linalg.norm(objective(flat)[1]))
    for _ in range(_NEWTON_STEPS):
        if size < _GRADIENT:
            break
        try:
            tried = flat - np.linalg.solve(hessian(flat), objective(flat)[1])
        except np.linalg.LinAlgError:
            break
        after = float(np.linalg.norm(objective(tried)[1]))
        if not after < size:
            break
        flat, size = tried, after
    return flat


def _hessian(flat: Array, features_NF: Array, kind: str, outputs: int, c: float) -> Array:
    """Of the objective, in the order of `flat`: weights by output, then biases."""
    num_examples, num_features = features_NF.shape
    inputs_NG = np.concatenate([features_NF, np.ones((num_examples, 1))], axis=1)
    outputs_NC = features_NF @ flat[:-outputs].reshape(outputs, num_features).T + flat[-outputs:]
    p_NC = softmax(outputs_NC, axis=1) if kind == "classification" else expit(outputs_NC)
    blocks = np.zeros((outputs, num_features + 1, outputs, num_features + 1))
    for first in range(outputs):
        for second in range(first, outputs):
            if first == second:
                curvature_N = p_NC[:, first] * (1 - p_NC[:, first])
            elif kind == "classification":
                curvature_N = -p_NC[:, first] * p_NC[:, second]
            else:
                continue
            block = c * (inputs_NG * curvature_N[:, None]).T @ inputs_NG
            blocks[first, :, second] = blocks[second, :, first] = block
    if kind == "classification":  # a common shift of all biases changes nothing: no step is wanted along it
        blocks[:, -1, :, -1] += 1.0
    flat_blocks = blocks.reshape(outputs * (num_features + 1), -1)
    place = np.arange(len(flat_blocks)).reshape(outputs, num_features + 1)
    order = np.concatenate([place[:, :-1].ravel(), place[:, -1]])
    total: Array = flat_blocks[np.ix_(order, order)]
    total[np.arange(outputs * num_features), np.arange(outputs * num_features)] += 1.0
    return total


@dataclass(frozen=True, kw_only=True)
class ProbeHeads(ClosedForm):
    """Sets every head to its linear probe on the network's features, which are read once, in evaluation mode.

    Attributes:
        penalty: c of `c * sum loss + 1/2 |W|^2`; `auto`: of nine powers of ten the best by validation loss.
        standardize: features to mean 0 and deviation 1 first; folded into the head afterwards.
    """

    penalty: float | str = "auto"
    standardize: bool = True

    @property
    def looks(self) -> int:
        """One a penalty, where there is a choice."""
        return len(PENALTIES) if isinstance(self.penalty, str) else 0

    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan with fitted heads."""
        network = require_network(plan.network, "A linear probe")
        train_NF = features_of(network, data.train.inputs).double().numpy()
        validation_NF = features_of(network, data.validation.inputs).double().numpy()
        center_F, deviation_F = np.zeros(train_NF.shape[1]), np.ones(train_NF.shape[1])
        if self.standardize:
            center_F, deviation_F = train_NF.mean(0), train_NF.std(0)
            deviation_F = np.where(deviation_F > 1e-12, deviation_F, 1.0)
        report = {}
        for task in data.tasks:
            fitted, c = self._fitted(
                task,
                ((train_NF - center_F) / deviation_F, data.train.targets[task.name]),
                ((validation_NF - center_F) / deviation_F, data.validation.targets[task.name]),
            )
            head = network.heads[task.name]
            assert isinstance(head, Head)
            weight_CF = fitted.weight_CF / deviation_F
            with torch.no_grad():
                head.linear.weight.copy_(torch.from_numpy(weight_CF))
                head.linear.bias.copy_(torch.from_numpy(fitted.bias_C - weight_CF @ center_F))
            report[task.name] = {"c": c, "objective": fitted.objective, "gradient_norm": fitted.gradient_norm}
        examples = len(data.train) + len(data.validation)
        return replace(plan, report={**plan.report, "probe": report, "probe_examples_through_backbone": examples})

    def _fitted(self, task: Task, train: tuple[Array, Tensor], validation: tuple[Array, Tensor]) -> tuple[Probe, float]:
        """The probe and its c."""
        train_NF, targets = _labelled(task, *train)
        require_all_classes(task, targets)
        validation_NF, expected = _labelled(task, *validation)
        best: tuple[float, Probe, float] | None = None
        probe: Probe | None = None
        for c in PENALTIES if isinstance(self.penalty, str) else (self.penalty,):
            probe = fit_probe(train_NF, targets, kind=task.kind, outputs=task.outputs, c=c, start=probe)
            loss = _summed_loss(task, probe(validation_NF), expected)
            if best is None or loss < best[0]:
                best = (loss, probe, c)
        assert best is not None, "there is a penalty"
        return best[1], best[2]


def require_all_classes(task: Task, targets: Array) -> None:
    """Raises `DataError` where a class has no training example: its row of the head would be arbitrary."""
    if task.kind != "classification":
        return
    missing = sorted(set(range(task.outputs)) - set(targets.astype(int).tolist()))
    if missing:
        names = ", ".join(task.classes[index] if task.classes else str(index) for index in missing[:5])
        raise DataError(
            f"A linear probe needs a training example of every class of task `{task.name}`. Found none of {names}. "
            "Did you mean a larger data.target_size?"
        )


def _labelled(task: Task, features_NF: Array, targets: Tensor) -> tuple[Array, Array]:
    """Without examples that have no label; values of regression in units of the head's own outputs."""
    if task.kind == "classification":
        keep_N = (targets >= 0).numpy()
        return features_NF[keep_N], targets.numpy()[keep_N]
    keep_N = (~targets.isnan().any(1)).numpy()
    values_NC = targets.double().numpy()[keep_N]
    if task.kind == "regression" and task.scale:
        values_NC = (values_NC - np.asarray(task.location)) / np.asarray(task.scale)
    return features_NF[keep_N], values_NC


def _summed_loss(task: Task, outputs_NC: Array, targets: Array) -> float:
    if task.kind == "regression":
        return float(((outputs_NC - targets) ** 2).sum())
    loss = _cross_entropy(targets.astype(np.int64)) if task.kind == "classification" else _logistic(targets)
    return loss(outputs_NC)[0]


def _cross_entropy(labels_N: NDArray[np.int64]) -> Loss:
    rows_N = np.arange(len(labels_N))

    def loss(outputs_NC: Array) -> tuple[float, Array]:
        log_NC = log_softmax(outputs_NC, axis=1)
        slope_NC = np.exp(log_NC)
        slope_NC[rows_N, labels_N] -= 1.0
        return -float(log_NC[rows_N, labels_N].sum()), slope_NC

    return loss


def _logistic(labels_NC: Array) -> Loss:
    signs_NC = 2.0 * labels_NC - 1.0

    def loss(outputs_NC: Array) -> tuple[float, Array]:
        margin_NC = signs_NC * outputs_NC
        return -float(log_expit(margin_NC).sum()), -signs_NC * expit(-margin_NC)

    return loss


def _ridge(features_NF: Array, targets_NC: Array, c: float) -> Probe:
    """C * sum |x W^T + b - y|^2 + 1/2 |W|^2: (X^T X + I / (2 c)) W^T = X^T Y of centered X and Y."""
    center_F, center_C = features_NF.mean(0), targets_NC.mean(0)
    x_NF, y_NC = features_NF - center_F, targets_NC - center_C
    weight_FC = np.linalg.solve(x_NF.T @ x_NF + np.eye(x_NF.shape[1]) / (2 * c), x_NF.T @ y_NC)
    objective = c * float(((x_NF @ weight_FC - y_NC) ** 2).sum()) + 0.5 * float((weight_FC**2).sum())
    return Probe(weight_CF=weight_FC.T, bias_C=center_C - center_F @ weight_FC, objective=objective, gradient_norm=0.0)


@dataclass(frozen=True, kw_only=True)
class ClassMeanHeads(ClosedForm):
    """Heads from class means of the features: `W_c = mean_c - mean`, `b_c = -|W_c|^2 / 2`."""

    def apply(self, plan: Plan, data: Data) -> Plan:
        """The plan with these heads."""
        network = require_network(plan.network, "head=class_mean")
        features_NF = features_of(network, data.train.inputs)
        for task in data.tasks:
            head, labels_N = network.heads[task.name], data.train.targets[task.name]
            assert isinstance(head, Head)
            require_all_classes(task, labels_N[labels_N >= 0].double().numpy())
            rows_CF = torch.stack([features_NF[labels_N == index].mean(0) for index in range(task.outputs)])
            rows_CF = rows_CF - features_NF[labels_N >= 0].mean(0)
            with torch.no_grad():
                head.linear.weight.copy_(rows_CF)
                head.linear.bias.copy_(-0.5 * rows_CF.square().sum(1))
        return plan
