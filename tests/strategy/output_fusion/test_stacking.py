from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from tests.toy import CPU
from transfuse.metrics import scores
from transfuse.randomness import make_generator
from transfuse.strategy.cross_fit import cross_fit
from transfuse.strategy.output_fusion import Stacking, fuse
from transfuse.strategy.output_fusion.meta_features import averaging, log_features
from transfuse.strategy.output_fusion.meta_linear import LinearStack, logistic_regression
from transfuse.strategy.output_fusion.meta_mlp import MlpStack
from transfuse.strategy.output_fusion.meta_ridge import RidgeStack
from transfuse.strategy.predictions import Predictions
from transfuse.training.fit import Fit
from transfuse.types import (
    ConvergenceError,
    EmptyTaskError,
    HyperparameterError,
    NeedsContextError,
    PredictionError,
    Task,
    TaskKind,
)

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "output_fusion" / "stacking.npz")
LABELS = torch.from_numpy(GOLDEN["in_y"])
LOGITS = torch.from_numpy(np.log(GOLDEN["in_probs"]))
TEST_LOGITS = torch.from_numpy(np.log(GOLDEN["in_test_probs"]))
KINDS: list[TaskKind] = ["classification", "multilabel", "regression"]


def task_of(predictions: Predictions) -> Task:
    return Task(name="task", kind=predictions.kind, outputs=predictions.logits_MNC.shape[2])


def centered(w_CF: Tensor) -> Tensor:
    """Adding one row vector to all rows of W changes no probability."""
    return w_CF - w_CF.mean(dim=0)


@pytest.mark.parametrize("c", [1.0, 0.1])
def test_golden_multinomial_logistic_regression(c: float) -> None:
    penalty = 1 / (2 * len(LABELS) * c)
    found = fuse(LOGITS, method="stacking", labels=LABELS, penalty=penalty, prior="zero")
    stack = found.combiner
    assert isinstance(stack, LinearStack)
    np.testing.assert_allclose(stack(TEST_LOGITS).exp(), GOLDEN[f"out_linear_C{c}_test_probs"], atol=1e-6)
    np.testing.assert_allclose(centered(stack.coefficients_CF), GOLDEN[f"out_linear_C{c}_coef"], atol=1e-5)
    np.testing.assert_allclose(centered(stack.intercept_C), GOLDEN[f"out_linear_C{c}_intercept"], atol=1e-5)
    task = Task(name="y", kind="classification", outputs=3)
    assert scores(task, found.logits_NC, LABELS)["nll"] == pytest.approx(
        float(GOLDEN[f"out_linear_C{c}_train_nll"]), abs=1e-8
    )
    assert found.weights is None
    assert found.diagnostics["fusion/gradient"] < 1e-8


def test_golden_cross_fitted_probabilities() -> None:
    def fit_and_predict(rest: Tensor, held: Tensor, fold: int) -> Tensor:
        # the peer's C counts the sum over the examples of the fit
        fields = {"penalty": 1 / (2 * len(rest)), "prior": "zero"}
        return fuse(LOGITS[:, rest], method="stacking", labels=LABELS[rest], **fields).combiner(LOGITS[:, held])

    found_NC = cross_fit(fit_and_predict, torch.from_numpy(GOLDEN["out_fold"])).exp()
    np.testing.assert_allclose(found_NC, GOLDEN["out_cross_fitted_probs"], atol=1e-5)


def test_golden_ridge() -> None:
    stack = fuse(LOGITS, method="stacking", labels=LABELS, learner="ridge", penalty=1.0, prior="zero").combiner
    assert isinstance(stack, RidgeStack)
    np.testing.assert_allclose(stack.coefficients_CF, GOLDEN["out_ridge1_coef"], atol=1e-8)
    np.testing.assert_allclose(stack.intercept_C, GOLDEN["out_ridge1_intercept"], atol=1e-8)
    clipped_NC = GOLDEN["out_ridge1_test"].clip(min=1e-6)
    np.testing.assert_allclose(stack(TEST_LOGITS).exp(), clipped_NC / clipped_NC.sum(axis=1, keepdims=True), atol=1e-8)


@pytest.mark.parametrize("bias", [True, False])
def test_multilabel_is_one_logistic_regression_a_label_on_all_log_odds(bias: bool) -> None:
    predictions = make_predictions("multilabel", examples=60, outputs=3)
    found = fuse(
        predictions.logits_MNC,
        method="stacking",
        labels=predictions.labels,
        kind="multilabel",
        penalty=0.01,
        prior="zero",
        bias=bias,
    )
    x_NF = predictions.logits_MNC.permute(1, 0, 2).reshape(60, 9).numpy()
    for label in range(3):
        # the mean is over examples and labels
        peer = LogisticRegression(C=1 / (2 * 60 * 3 * 0.01), tol=1e-10, max_iter=10_000, fit_intercept=bias)
        peer.fit(x_NF, predictions.truth[:, label].numpy())
        np.testing.assert_allclose(
            probabilities(found.logits_NC, "multilabel")[:, label], peer.predict_proba(x_NF)[:, 1], atol=1e-6
        )


def test_multilabel_ridge_is_least_squares_on_probabilities() -> None:
    predictions = make_predictions("multilabel", outputs=3)
    found = fuse(
        predictions.logits_MNC, method="stacking", labels=predictions.labels, kind="multilabel", learner="ridge",
        penalty=2.0, prior="zero",
    )  # fmt: skip
    x_NF = predictions.logits_MNC.sigmoid().permute(1, 0, 2).reshape(40, 9).numpy()
    expected_NC = Ridge(alpha=2.0).fit(x_NF, predictions.truth.numpy()).predict(x_NF).clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(probabilities(found.logits_NC, "multilabel"), expected_NC, atol=1e-7)


def test_regression_ridge_has_the_peers_alpha_in_the_targets_units() -> None:
    predictions = make_predictions("regression", outputs=2)
    stacked = fuse(
        predictions.logits_MNC, method="stacking", labels=predictions.labels, kind="regression", learner="ridge",
        penalty=3.0, prior="zero",
    )  # fmt: skip
    x_NF = predictions.logits_MNC.permute(1, 0, 2).reshape(40, 6).numpy()
    peer = Ridge(alpha=3.0).fit(x_NF, predictions.truth.double().numpy())
    np.testing.assert_allclose(stacked.logits_NC, peer.predict(x_NF), atol=1e-10)


def test_linear_regression_minimises_its_objective_and_knows_no_units() -> None:
    predictions = make_predictions("regression", outputs=2)
    y_NC = predictions.truth.double()
    found = fuse(predictions.logits_MNC, method="stacking", labels=y_NC, kind="regression", penalty=0.3)
    scale_C = y_NC.numpy().std(axis=0)
    x_NF = (predictions.logits_MNC.numpy() / scale_C).transpose(1, 0, 2).reshape(40, 6)
    prior = np.tile(np.eye(2), 3) / 3

    def objective(parameters: Any) -> float:
        w_CF, b_C = parameters[:12].reshape(2, 6), parameters[12:]
        errors_NC = y_NC.numpy() / scale_C - x_NF @ w_CF.T - b_C
        return float((errors_NC**2).sum(axis=1).mean() + 0.3 * ((w_CF - prior) ** 2).sum())

    best = minimize(objective, np.zeros(14), tol=1e-12).x
    np.testing.assert_allclose(found.logits_NC, (x_NF @ best[:12].reshape(2, 6).T + best[12:]) * scale_C, atol=1e-5)
    units_C = torch.tensor([1e3, 1e-3], dtype=torch.float64)
    other = fuse(
        predictions.logits_MNC * units_C, method="stacking", labels=y_NC * units_C, kind="regression", penalty=0.3
    )
    torch.testing.assert_close(other.logits_NC / units_C, found.logits_NC, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("members", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_penalty_without_bias_is_the_geometric_mean(kind: TaskKind, members: int) -> None:
    predictions = make_predictions(kind, members=members)
    given: dict[str, Any] = {"labels": predictions.labels, "kind": kind}
    stacked = fuse(predictions.logits_MNC, method="stacking", penalty=1e8, bias=False, **given).logits_NC
    mean = fuse(predictions.logits_MNC, method="geometric_mean" if kind != "regression" else "average", kind=kind)
    torch.testing.assert_close(probabilities(stacked, kind), probabilities(mean.logits_NC, kind), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_penalty_makes_ridge_the_average(kind: TaskKind) -> None:
    predictions = make_predictions(kind)
    given: dict[str, Any] = {"learner": "ridge", "penalty": 1e10, "bias": False, "kind": kind}
    stacked = fuse(predictions.logits_MNC, method="stacking", labels=predictions.labels, **given).logits_NC
    expected = probabilities(predictions.logits_MNC, kind).mean(dim=0)
    torch.testing.assert_close(probabilities(stacked, kind), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
@pytest.mark.parametrize("learner", ["linear", "ridge"])
def test_the_default_is_not_worse_in_sample_than_its_prior(kind: TaskKind, learner: str) -> None:
    predictions = make_predictions(kind, examples=100)
    given: dict[str, Any] = {"method": "stacking", "labels": predictions.labels, "kind": kind, "learner": learner}
    measure = "nll" if learner == "linear" else "brier"
    values = [
        scores(
            task_of(predictions), fuse(predictions.logits_MNC, penalty=penalty, **given).logits_NC, predictions.truth
        )
        for penalty in (1e-2, 1.0, 1e2, 1e8)
    ]
    assert [value[measure] for value in values] == sorted(value[measure] for value in values)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_the_gradient_vanishes(kind: TaskKind, bias: bool) -> None:
    predictions = make_predictions(kind, members=2, outputs=3)
    features_NF = log_features(predictions.logits_MNC, kind)
    prior_CF = averaging(2, 3)
    labels = predictions.truth if kind == "classification" else predictions.truth.double()
    w_CF, b_C, reported = logistic_regression(features_NF, labels, prior_CF, penalty=0.05, bias=bias)
    w_CF, b_C = w_CF.requires_grad_(), b_C.requires_grad_()
    logits_NC = features_NF @ w_CF.T + b_C
    if kind == "classification":
        loss = torch.nn.functional.cross_entropy(logits_NC, labels)
    else:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_NC, labels)
    (loss + 0.05 * (w_CF - prior_CF).square().sum()).backward()
    assert w_CF.grad is not None and b_C.grad is not None
    assert float(w_CF.grad.abs().max()) < 1e-7 and reported < 1e-7
    assert float(b_C.grad.abs().max()) < 1e-7 if bias else bool((b_C == 0).all())


@pytest.mark.parametrize("learner", ["linear", "ridge"])
@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_examples_do_not_count(kind: TaskKind, learner: str) -> None:
    predictions = make_predictions(kind, examples=50)
    labels = predictions.truth.clone()
    labels[40:] = -1 if kind == "classification" else torch.nan
    given: dict[str, Any] = {"method": "stacking", "kind": kind, "learner": learner}
    some = fuse(predictions.logits_MNC, labels=labels, **given)
    first = fuse(predictions.logits_MNC[:, :40], labels=predictions.truth[:40], **given)
    if learner == "linear" and kind == "classification":
        # features are centered on all examples: equal up to the solver's tolerance
        torch.testing.assert_close(some.logits_NC[:40], first.logits_NC, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(probabilities(some.logits_NC[:40], kind), probabilities(first.logits_NC, kind))


@pytest.mark.parametrize("learner", ["linear", "ridge"])
def test_a_target_that_is_partly_known_is_fitted_on_what_is_known(learner: str) -> None:
    predictions = make_predictions("regression", outputs=2)
    labels = predictions.truth.clone()
    labels[30:, 1] = torch.nan
    given: dict[str, Any] = {"method": "stacking", "kind": "regression", "learner": learner, "penalty": 1e-6}
    found = fuse(predictions.logits_MNC, labels=labels, **given).combiner(predictions.logits_MNC)
    all_known = fuse(predictions.logits_MNC, labels=predictions.labels, **given).logits_NC
    first = fuse(predictions.logits_MNC[:, :30], labels=predictions.truth[:30], **given)
    torch.testing.assert_close(found[:, 0], all_known[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 1], first.combiner(predictions.logits_MNC)[:, 1], rtol=1e-4, atol=1e-4)


def test_a_class_without_examples_is_accepted() -> None:
    predictions = make_predictions("classification", outputs=4)
    labels = predictions.truth.clone()
    labels[labels == 3] = 0
    assert fuse(predictions.logits_MNC, method="stacking", labels=labels).logits_NC.isfinite().all()


def test_it_corrects_members_that_confuse_two_classes() -> None:
    generator = make_generator("confusion")
    labels_N = torch.arange(300) % 3
    logits_MNC = 2.0 * torch.nn.functional.one_hot(labels_N, 3) + torch.randn(4, 300, 3, generator=generator)
    swapped_MNC = logits_MNC[:, :, [1, 0, 2]]
    task = Task(name="y", kind="classification", outputs=3)
    average = fuse(swapped_MNC, method="average").logits_NC
    stacked = fuse(swapped_MNC[:, :150], method="stacking", labels=labels_N[:150], penalty=0.01)
    assert scores(task, average, labels_N)["accuracy"] < 0.5
    assert scores(task, stacked.combiner(swapped_MNC[:, 150:]), labels_N[150:])["accuracy"] > 0.9


def test_with_few_examples_the_average_as_prior_is_better_than_zero() -> None:
    predictions = make_predictions("classification", members=5, examples=1000, outputs=10)
    logits_MNC, labels_N = predictions.logits_MNC, predictions.truth
    nll = {}
    for prior in ("average", "zero"):
        stack = fuse(logits_MNC[:, :100], method="stacking", labels=labels_N[:100], prior=prior).combiner
        nll[prior] = scores(task_of(predictions), stack(logits_MNC[:, 100:]), labels_N[100:])["nll"]
    assert nll["average"] < nll["zero"] - 0.05


# the neural learner


def in_a_run(predictions: Predictions) -> Predictions:
    task = replace(task_of(predictions), location=(0.0,) * 4, scale=(1.0,) * 4)
    return replace(predictions, task=task, fit=Fit(CPU), generator=make_generator("mlp"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_mlp_starts_as_the_average_and_learns(kind: TaskKind, bias: bool) -> None:
    predictions = in_a_run(make_predictions(kind, members=2, examples=200, dtype=torch.float32))
    stack = Stacking(learner="mlp", bias=bias).combine(predictions)
    assert isinstance(stack, MlpStack) and not stack.training
    assert (stack.hidden.bias is not None) == (stack.out.bias is not None) == bias
    assert not any(parameter.requires_grad for parameter in stack.parameters())
    method = "average" if kind == "regression" else "logit_average"
    mean = fuse(predictions.logits_MNC, method=method, kind=kind).logits_NC
    measure = "rmse" if kind == "regression" else "nll"
    task = predictions.task
    assert task is not None
    found = scores(task, stack(predictions.logits_MNC), predictions.truth)[measure]
    assert found < scores(task, mean, predictions.truth)[measure]
    assert stack.diagnostics["fusion/epochs"] >= 1
    untrained = copy.deepcopy(stack)
    torch.nn.init.zeros_(untrained.out.weight)
    if bias:
        torch.nn.init.zeros_(untrained.out.bias)
    torch.testing.assert_close(untrained(predictions.logits_MNC), mean, rtol=1e-4, atol=1e-4)


def test_mlp_with_a_zero_prior_is_the_network_alone_and_repeats() -> None:
    predictions = in_a_run(make_predictions("classification", members=2, examples=100))
    first = Stacking(learner="mlp", prior="zero").combine(predictions)
    assert isinstance(first, MlpStack)
    assert not first.prior_CF.any()
    again = Stacking(learner="mlp", prior="zero").combine(in_a_run(predictions))
    assert torch.equal(first(predictions.logits_MNC), again(predictions.logits_MNC))
    output_NC = first(predictions.logits_MNC)
    assert output_NC.dtype == torch.float64
    torch.testing.assert_close(output_NC.exp().sum(1), torch.ones(100).double(), rtol=0, atol=1e-6)


def test_mlp_is_trained_without_the_unlabelled() -> None:
    predictions = in_a_run(make_predictions("multilabel", members=2, examples=60))
    labels = predictions.truth.clone()
    labels[::3, 1] = torch.nan
    stack = Stacking(learner="mlp").combine(replace(predictions, labels=labels))
    assert stack(predictions.logits_MNC).isfinite().all()


def test_mlp_needs_a_run() -> None:
    predictions = make_predictions("classification")
    with pytest.raises(NeedsContextError, match="Lightning trains this method"):
        fuse(predictions.logits_MNC, method="stacking", labels=predictions.labels, learner="mlp")


def test_mlp_needs_five_labels() -> None:
    predictions = in_a_run(make_predictions("classification"))
    labels = predictions.truth.clone()
    labels[4:] = -1
    with pytest.raises(EmptyTaskError, match=r"needs at least 5 labelled examples\. Found 4"):
        Stacking(learner="mlp").combine(replace(predictions, labels=labels))


# bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learner": "forest"}, "`learner` should be linear or ridge or mlp. Found `learner = forest`."),
        ({"prior": "uniform"}, "`prior` should be average or zero. Found `prior = uniform`."),
        ({"fit_on": "train"}, "`fit_on` should be validation or out_of_fold. Found `fit_on = train`."),
        ({"penalty": 0.0}, "`penalty` should be > 0 and finite. Found `penalty = 0.0`."),
        ({"penalty": float("nan")}, "`penalty` should be > 0 and finite. Found `penalty = nan`."),
        ({"learner": "mlp", "penalty": 100.0}, "`penalty` should be < 100 with `learner = mlp`."),
    ],
)
def test_bad_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        Stacking(**fields)


def test_without_labels() -> None:
    predictions = make_predictions("classification")
    with pytest.raises(NeedsContextError, match="`labels` are missing"):
        fuse(predictions.logits_MNC, method="stacking")
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        fuse(predictions.logits_MNC, method="stacking", labels=torch.full((40,), -1))


@pytest.mark.parametrize("learner", ["linear", "ridge"])
def test_another_number_of_members(learner: str) -> None:
    predictions = make_predictions("classification", members=3, outputs=4)
    stack = fuse(predictions.logits_MNC, method="stacking", labels=predictions.labels, learner=learner).combiner
    with pytest.raises(PredictionError, match="fitted on 12 outputs of all members together. Found 8"):
        stack(predictions.logits_MNC[:2])


def test_a_solver_that_stops_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfuse.strategy.output_fusion.meta_linear._MAX_ITERATIONS", 2)
    predictions = make_predictions("classification")
    with pytest.raises(ConvergenceError, match=r"gradient is .* after 2 iterations, above 1e-06"):
        fuse(predictions.logits_MNC, method="stacking", labels=predictions.labels, penalty=1e-3)
