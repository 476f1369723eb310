from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.linear_model import LinearRegression, Ridge

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.metrics import score
from transfuse.strategy.output_fusion import LeastSquares, fuse
from transfuse.strategy.output_fusion.least_squares import Constraint, stacked_regression
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import least_squares_weights
from transfuse.types import EmptyTaskError, HyperparameterError, IncompatibleStrategyError, Task

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "regression.npz"
CONSTRAINTS: list[Constraint] = ["simplex", "affine", "nonnegative", "none"]


@pytest.mark.parametrize(
    ("constraint", "key"),
    [("simplex", "ls_simplex_weights"), ("affine", "affine_weights"), ("nonnegative", "nnls_coef")],
)
def test_golden_weights(constraint: Constraint, key: str) -> None:
    golden = np.load(GOLDEN)
    fusion = fuse(
        golden["in_preds"][:, :, None],
        method="least_squares",
        labels=golden["in_y"][:, None],
        kind="regression",
        constraint=constraint,
    )
    assert fusion.weights is not None
    np.testing.assert_allclose(fusion.weights[:, 0].numpy(), golden[f"out_{key}"], atol=1e-8)
    if f"out_{key.removesuffix('_weights')}_mse" in golden.files:
        mse = ((fusion.logits_NC[:, 0].numpy() - golden["in_y"]) ** 2).mean()
        assert mse == pytest.approx(float(golden[f"out_{key.removesuffix('_weights')}_mse"]), abs=1e-8)


def test_golden_ordinary_least_squares_and_ridge() -> None:
    golden = np.load(GOLDEN)
    values, targets = torch.tensor(golden["in_preds"]), torch.tensor(golden["in_y"])
    w_M, b = stacked_regression(values, targets, constraint="none", intercept=True)
    np.testing.assert_allclose([b, *w_M], golden["out_ols_coef"], atol=1e-8)
    w_M, b = stacked_regression(values, targets, constraint="none", intercept=True, ridge=1.0)
    np.testing.assert_allclose(w_M, golden["out_ridge1_coef"], atol=1e-8)
    assert b == pytest.approx(float(golden["out_ridge1_intercept"]), abs=1e-8)


def test_bates_granger_are_the_affine_weights_with_intercept() -> None:
    golden = np.load(GOLDEN)
    w_M, _ = stacked_regression(
        torch.tensor(golden["in_preds"]), torch.tensor(golden["in_y"]), constraint="affine", intercept=True
    )
    np.testing.assert_allclose(w_M, golden["out_bates_granger_weights"], atol=1e-8)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 2.5])
def test_each_target_equals_the_reference(intercept: bool, ridge: float) -> None:
    predictions = make_predictions("regression", members=4, outputs=3)
    strategy = LeastSquares(constraint="none", intercept=intercept, ridge=ridge)
    combiner = strategy.combine(predictions)
    assert combiner.weights is not None
    for target in range(3):
        model = Ridge(alpha=ridge, fit_intercept=intercept) if ridge else LinearRegression(fit_intercept=intercept)
        model.fit(predictions.logits_MNC[:, :, target].T.numpy(), predictions.truth[:, target].double().numpy())
        np.testing.assert_allclose(combiner.weights[:, target].numpy(), model.coef_, atol=1e-8)
        assert float(combiner.intercept[target]) == pytest.approx(float(model.intercept_), abs=1e-8)


def test_nonnegative_equals_the_reference_with_ridge() -> None:
    predictions = make_predictions("regression", members=5, outputs=1)
    values, targets = predictions.logits_MNC[:, :, 0], predictions.truth[:, 0].double()
    w_M, _ = stacked_regression(values, -targets, constraint="nonnegative", ridge=4.0)
    expected = nnls(np.vstack([values.T.numpy(), 2 * np.eye(5)]), np.append(-targets.numpy(), np.zeros(5)))[0]
    np.testing.assert_allclose(w_M, expected, atol=1e-9)


def test_simplex_is_the_weight_rule_of_one_target() -> None:
    predictions = make_predictions("regression", members=5, outputs=1)
    values, targets = predictions.logits_MNC[:, :, 0], predictions.truth[:, 0]
    torch.testing.assert_close(stacked_regression(values, targets)[0], least_squares_weights(values, targets)[0])


def test_looser_constraints_fit_better_and_simplex_beats_every_member() -> None:
    predictions = make_predictions("regression", members=6, outputs=2)
    task = Task(name="y", kind="regression", outputs=2)

    def rmse(constraint: Constraint, intercept: bool) -> float:
        combiner = LeastSquares(constraint=constraint, intercept=intercept).combine(predictions)
        return score(task, combiner(predictions.logits_MNC), predictions.truth, "rmse")

    found = {constraint: rmse(constraint, False) for constraint in CONSTRAINTS}
    assert found["none"] <= min(found["affine"], found["nonnegative"]) + 1e-12
    assert max(found["affine"], found["nonnegative"]) <= found["simplex"] + 1e-12
    assert found["simplex"] <= float(predictions.scores("rmse").min()) + 1e-12
    for constraint in CONSTRAINTS:
        assert rmse(constraint, True) <= found[constraint] + 1e-12


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_strong_ridge(constraint: Constraint) -> None:
    predictions = make_predictions("regression", members=4, outputs=1)
    combiner = LeastSquares(constraint=constraint, ridge=1e12).combine(predictions)
    assert combiner.weights is not None
    limit = 0.25 if constraint in ("simplex", "affine") else 0.0
    np.testing.assert_allclose(combiner.weights.numpy(), limit, atol=1e-6)
    assert combiner.diagnostics["fusion/weight_sum"] == pytest.approx(4 * limit, abs=1e-6)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_an_intercept_takes_out_a_common_bias(constraint: Constraint) -> None:
    predictions = make_predictions("regression", members=4, outputs=2)
    shifted = Predictions(logits_MNC=predictions.logits_MNC + 7.0, kind="regression", labels=predictions.truth)
    strategy = LeastSquares(constraint=constraint, intercept=True)
    plain, biased = (strategy.combine(given)(given.logits_MNC) for given in (predictions, shifted))
    torch.testing.assert_close(biased, plain, rtol=0, atol=1e-7)


@pytest.mark.parametrize("constraint", ["affine", "none"])
def test_copies_share_their_weight(constraint: Constraint) -> None:
    predictions = make_predictions("regression", members=3, outputs=1)
    values, targets = predictions.logits_MNC[:, :, 0], predictions.truth[:, 0]
    once, _ = stacked_regression(values, targets, constraint=constraint)
    twice, _ = stacked_regression(torch.cat([values, values[:1]]), targets, constraint=constraint)
    torch.testing.assert_close(twice[[0, 1, 2]] + twice[[3, 1, 2]] * torch.tensor([1, 0, 0]), once, rtol=0, atol=1e-8)
    assert float(twice[0]) == pytest.approx(float(twice[3]), abs=1e-8)


def test_unlabelled_values_do_not_count() -> None:
    predictions = make_predictions("regression", members=3, outputs=2)
    predictions.truth[15:, 0] = torch.nan
    found = LeastSquares().combine(predictions).weights
    assert found is not None
    expected, _ = stacked_regression(predictions.logits_MNC[:, :15, 0], predictions.truth[:15, 0])
    torch.testing.assert_close(found[:, 0], expected)
    predictions.truth[:, 1] = torch.nan
    with pytest.raises(EmptyTaskError, match="at least one labelled example a target"):
        LeastSquares().combine(predictions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"constraint": "box"},
            "`constraint` should be simplex, affine, nonnegative or none. Found `constraint = box`.",
        ),
        ({"ridge": -1.0}, "`ridge` should be >= 0 and finite. Found `ridge = -1.0`."),
    ],
)
def test_ranges(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        LeastSquares(**fields)  # type: ignore[arg-type]


def test_classes_have_no_squared_error() -> None:
    predictions = make_predictions("classification")
    with pytest.raises(IncompatibleStrategyError, match="output_fusion/weighted_average"):
        fuse(predictions.logits_MNC, method="least_squares", labels=predictions.labels)
