from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import PerClassWeights, fuse
from transfuse.strategy.output_fusion.class_columns import class_mixtures
from transfuse.strategy.output_fusion.class_logits import class_logits
from transfuse.strategy.output_fusion.log_pool_optimal import log_pool_weights
from transfuse.strategy.weights.nll_optimal import nll_optimal_weights
from transfuse.types import HyperparameterError, IncompatibleStrategyError, TaskKind

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "output_fusion" / "multilabel.npz")
PREDICTIONS = make_predictions("classification", members=3, examples=90)


def combined(strategy: PerClassWeights, kind: TaskKind = "classification") -> Any:
    return strategy.combine(make_predictions(kind, members=3, examples=90))


def test_golden_weights_label_by_label() -> None:
    fused = fuse(
        GOLDEN["in_logits"],
        method="per_class_weights",
        labels=GOLDEN["in_y"].astype(np.float32),
        kind="multilabel",
        space="probability",
        penalty=0.0,
    )
    assert fused.weights is not None
    np.testing.assert_allclose(fused.weights.numpy(), GOLDEN["out_per_label_weights_ML"], atol=1e-5)
    p_NL, y_NL = torch.sigmoid(fused.logits_NC).numpy(), GOLDEN["in_y"]
    nll_L = -np.log(np.where(y_NL == 1, p_NL, 1 - p_NL)).mean(axis=0)
    np.testing.assert_allclose(nll_L, GOLDEN["out_per_label_nll_L"], atol=1e-8)
    assert fused.diagnostics["fusion/kkt_gap"] <= 1e-12


def test_scipy_finds_the_same_class_logits() -> None:
    log_p_MNC, labels_N = PREDICTIONS.logits_MNC.log_softmax(-1), PREDICTIONS.truth
    pooled_M, _ = log_pool_weights(log_p_MNC, labels_N, sum="one")
    found = class_logits(log_p_MNC, labels_N, pooled_M, penalty=0.02)

    def objective(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        parameters = torch.tensor(x, requires_grad=True)
        weights_MC, bias_C = parameters[:12].reshape(3, 4), parameters[12:]
        loss = cross_entropy((weights_MC[:, None] * log_p_MNC).sum(0) + bias_C, labels_N)
        loss = loss + 0.02 * (((weights_MC - pooled_M[:, None]) ** 2).sum() + (bias_C**2).sum())
        (gradient,) = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), gradient.numpy()

    solved = minimize(objective, np.zeros(16), jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-12})
    mine = np.concatenate([found.weights_MC.flatten().numpy(), found.bias_C.numpy()])
    np.testing.assert_allclose(mine, solved.x, atol=1e-6)
    assert objective(mine)[0] <= solved.fun + 1e-13
    assert found.diagnostics["fusion/kkt_gap"] <= 1e-12


def test_scipy_finds_the_same_class_mixtures() -> None:
    p_MNC, labels_N = PREDICTIONS.logits_MNC.softmax(-1), PREDICTIONS.truth
    pooled_M = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    found = class_mixtures(p_MNC.log(), labels_N, pooled_M, penalty=0.03)

    def objective(x: np.ndarray[Any, Any]) -> float:
        weights_MC = torch.from_numpy(x).reshape(3, 4)
        q_NC = (weights_MC[:, None] * p_MNC).sum(0)
        # mean_n [-log q_ny + sum_c q_nc - 1] + penalty ||W - w||^2
        bound = nll_loss(q_NC.log(), labels_N) + q_NC.sum(1).mean() - 1
        return float(bound + 0.03 * ((weights_MC - pooled_M[:, None]) ** 2).sum())

    columns = [{"type": "eq", "fun": lambda x, c=c: x.reshape(3, 4)[:, c].sum() - 1} for c in range(4)]
    start = np.repeat(pooled_M.numpy(), 4)
    options = {"ftol": 1e-15, "maxiter": 1000}
    solved = minimize(objective, start, method="SLSQP", bounds=[(0, 1)] * 12, constraints=columns, options=options)
    mine = found.weights_MC.flatten().numpy()
    assert objective(mine) - found.diagnostics["fusion/kkt_gap"] <= solved.fun + 1e-12
    np.testing.assert_allclose(mine, solved.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_class_mixtures_are_never_worse_in_sample_than_pooled_weights(seed: int) -> None:
    predictions = make_predictions("classification", members=4, seed=seed)
    nll = {
        method: float(
            nll_loss(fuse(predictions.logits_MNC, labels=predictions.truth, **fields).logits_NC, predictions.truth)
        )
        for method, fields in {
            "pooled": {"method": "weighted_average", "weights": "nll_optimal"},
            "classes": {"method": "per_class_weights", "space": "probability", "penalty": 0.0},
        }.items()
    }
    assert nll["classes"] < nll["pooled"] + 1e-8


def test_class_logits_are_better_in_sample_than_the_pool() -> None:
    logits_MNC, labels_N = PREDICTIONS.logits_MNC, PREDICTIONS.truth
    pooled_NC = fuse(logits_MNC, method="log_pool_optimal", labels=labels_N, sum="one").logits_NC
    mine_NC = fuse(logits_MNC, method="per_class_weights", labels=labels_N).logits_NC
    assert nll_loss(mine_NC, labels_N) < nll_loss(pooled_NC, labels_N)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_a_large_penalty_is_the_pooled_optimum(kind: TaskKind) -> None:
    predictions = make_predictions(kind, members=3, examples=90)
    for space, method, fields in (
        ("logit", "log_pool_optimal", {"sum": "one"}),
        ("probability", "weighted_average", {}),
    ):
        expected = fuse(predictions.logits_MNC, method=method, labels=predictions.labels, kind=kind, **fields)
        strategy = PerClassWeights(space=space, penalty=1e7)  # type: ignore[arg-type]
        combiner = strategy.combine(predictions)
        torch.testing.assert_close(combiner(predictions.logits_MNC), expected.logits_NC, rtol=0, atol=1e-4)


def test_the_mixture_is_the_formula() -> None:
    combiner = combined(PerClassWeights(space="probability"))
    q_NC = (combiner.weights[:, None] * PREDICTIONS.logits_MNC.softmax(-1)).sum(0)
    expected_NC = q_NC / q_NC.sum(1, keepdim=True)
    torch.testing.assert_close(combiner(PREDICTIONS.logits_MNC).exp(), expected_NC)
    torch.testing.assert_close(combiner.weights.sum(0), torch.ones(4, dtype=torch.float64))
    labels = make_predictions("multilabel", members=3, examples=90)
    combiner = PerClassWeights(space="probability").combine(labels)
    expected_NL = (combiner.weights[:, None] * labels.logits_MNC.sigmoid()).sum(0)
    torch.testing.assert_close(combiner(labels.logits_MNC).sigmoid(), expected_NL)


def test_members_that_each_know_one_class() -> None:
    # member 0 tells class 0 from the others and guesses among these; member 1 knows class 2
    labels_N = torch.arange(90) % 3
    first = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.45, 0.45], [0.1, 0.45, 0.45]], dtype=torch.float64)[labels_N]
    second = torch.tensor([[0.45, 0.45, 0.1], [0.45, 0.45, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)[labels_N]
    fused = fuse(
        torch.stack([first, second]).log(),
        method="per_class_weights",
        labels=labels_N,
        space="probability",
        penalty=0.0,
    )
    weights = fused.weights
    assert weights is not None
    assert weights[0, 0] > 0.99
    assert weights[1, 2] > 0.99


@pytest.mark.parametrize("space", ["logit", "probability"])
def test_a_class_without_examples_has_the_pooled_weights(space: Any) -> None:
    noisy = [make_predictions("classification", members=3, examples=90, seed=seed).logits_MNC[2] for seed in range(3)]
    predictions = replace(PREDICTIONS, logits_MNC=torch.stack(noisy))
    kept = predictions.truth != 2
    some = replace(predictions, logits_MNC=predictions.logits_MNC[:, kept], labels=predictions.truth[kept])
    combiner = PerClassWeights(space=space).combine(some)
    assert combiner.weights is not None
    log_p_MEO = some.log_outcomes_MEO
    pooled_M = {
        "logit": log_pool_weights(log_p_MEO, some.truth, sum="one")[0],
        "probability": nll_optimal_weights(log_p_MEO, some.truth)[0],
    }[space]
    torch.testing.assert_close(combiner.weights[:, 2], pooled_M, rtol=0, atol=0)
    assert not torch.equal(combiner.weights[:, 0], pooled_M)
    assert combiner.diagnostics["fusion/pooled_classes"] == 1


@pytest.mark.parametrize("space", ["logit", "probability"])
def test_a_label_that_no_example_has_gets_the_pooled_weights(space: Any) -> None:
    predictions = make_predictions("multilabel", members=3, examples=90)
    labels_NL = predictions.truth.clone()
    labels_NL[:, 1] = 0.0
    labels_NL[:30, 2] = math.nan
    combiner = PerClassWeights(space=space).combine(replace(predictions, labels=labels_NL))
    assert combiner.diagnostics["fusion/pooled_classes"] == 1
    log_p_MEO, outcomes_E = predictions.log_outcomes_MEO, labels_NL.nan_to_num(-1).flatten().long()
    pooled_M = {
        "logit": log_pool_weights(log_p_MEO, outcomes_E, sum="one")[0],
        "probability": nll_optimal_weights(log_p_MEO, outcomes_E)[0],
    }[space]
    torch.testing.assert_close(weights_of(combiner)[:, 1], pooled_M, rtol=0, atol=0)
    # unlabelled examples do not count: the objective of label 2 is that of the others alone
    rest = replace(predictions, logits_MNC=predictions.logits_MNC[:, 30:, [2]], labels=labels_NL[30:, [2]])
    if space == "probability":
        unpenalized = PerClassWeights(space=space, penalty=0.0)
        found_M = weights_of(unpenalized.combine(replace(predictions, labels=labels_NL)))[:, 2]
        torch.testing.assert_close(found_M, weights_of(unpenalized.combine(rest))[:, 0], rtol=0, atol=1e-6)


def weights_of(combiner: Any) -> Tensor:
    found: Tensor = combiner.weights
    return found


def test_identical_labels_have_identical_columns() -> None:
    predictions = make_predictions("multilabel", members=3, examples=90)
    same = replace(
        predictions,
        logits_MNC=predictions.logits_MNC[:, :, :1].repeat(1, 1, 2),
        labels=predictions.truth[:, :1].repeat(1, 2),
    )
    for space in ("logit", "probability"):
        weights_ML = weights_of(PerClassWeights(space=space).combine(same))  # type: ignore[arg-type]
        torch.testing.assert_close(weights_ML[:, 0], weights_ML[:, 1], rtol=0, atol=1e-12)


def test_bad_fields() -> None:
    with pytest.raises(HyperparameterError, match=r"`space` should be probability or logit\. Found `space = values`"):
        PerClassWeights(space="values")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match=r"finite number > 0 for `space = logit`\. Found `penalty = 0"):
        PerClassWeights(penalty=0.0)
    for penalty in (-1.0, math.inf, math.nan):
        with pytest.raises(HyperparameterError, match="finite number >= 0 for `space = probability`"):
            PerClassWeights(space="probability", penalty=penalty)
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy=.*least_squares_optimal\?"):
        PerClassWeights().check_kind("regression")
