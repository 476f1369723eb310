"""The library function `transfuse.fuse`."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse import fuse
from transfuse.strategy.output_fusion import LogOpinionPool
from transfuse.strategy.weights import SoftmaxScore, Uniform
from transfuse.types import (
    HyperparameterError,
    IncompatibleStrategyError,
    NeedsContextError,
    NonFiniteError,
    PredictionError,
)

LOGITS = make_predictions("classification").logits_MNC
LABELS = make_predictions("classification").truth


def test_numpy_and_torch_give_the_same() -> None:
    one = fuse(LOGITS, method="weighted_average", labels=LABELS)
    two = fuse(LOGITS.numpy(), method="weighted_average", labels=LABELS.numpy())
    assert isinstance(two.logits_NC, torch.Tensor)
    assert torch.equal(one.logits_NC, two.logits_NC)


def test_the_combiner_fuses_further_predictions() -> None:
    fusion = fuse(LOGITS, method="weighted_average", labels=LABELS)
    torch.testing.assert_close(fusion.combiner(LOGITS[:, :3]), fusion.logits_NC[:3])
    assert fusion.diagnostics["fusion/kkt_gap"] <= 1e-8


def test_lists_of_numbers_keep_their_digits() -> None:
    found = fuse(LOGITS, method="weighted_average", weights=[0.1, 0.2, 0.7]).weights
    assert found is not None
    assert found.tolist() == pytest.approx([0.1, 0.2, 0.7], rel=1e-15)


@pytest.mark.parametrize(
    "weights",
    [
        [0.5, 0.25, 0.25],
        (2, 1, 1),
        np.array([4.0, 2.0, 2.0]),
        torch.tensor([0.5, 0.25, 0.25]),
        {"rule": "given", "values": [2, 1, 1]},
    ],
)
def test_given_weights_in_every_form(weights: Any) -> None:
    found = fuse(LOGITS, method="weighted_average", weights=weights).weights
    assert found is not None
    assert found.tolist() == [0.5, 0.25, 0.25]


def test_a_rule_by_name_by_fields_and_as_an_object() -> None:
    named = fuse(LOGITS, method="weighted_average", labels=LABELS, weights="softmax_score").weights
    fields = {"rule": "softmax_score", "temperature": 0.05}
    mapped = fuse(LOGITS, method="weighted_average", labels=LABELS, weights=fields).weights
    direct = fuse(LOGITS, method="weighted_average", labels=LABELS, weights=SoftmaxScore(temperature=0.05)).weights
    assert named is not None
    assert mapped is not None
    assert direct is not None
    assert torch.equal(named, mapped)
    assert torch.equal(named, direct)
    assert fields == {"rule": "softmax_score", "temperature": 0.05}


@pytest.mark.parametrize(
    "inner", ["geometric_mean", {"method": "geometric_mean", "weights": "uniform"}, LogOpinionPool(weights=Uniform())]
)
def test_an_inner_strategy_by_name_by_fields_and_as_an_object(inner: Any) -> None:
    tempered = fuse(LOGITS, method="temperature_scaled", inner=inner, accept="always", labels=LABELS)
    pooled = fuse(LOGITS, method="geometric_mean").logits_NC
    expected = (pooled / tempered.diagnostics["fusion/temperature"]).log_softmax(1)
    torch.testing.assert_close(tempered.logits_NC, expected, rtol=0, atol=1e-5)


def test_candidates_by_name_by_fields_and_as_objects() -> None:
    candidates = ["median", {"method": "weighted_average", "weights": [1, 0, 0]}, LogOpinionPool()]
    chosen = fuse(LOGITS, method="super_learner", candidates=candidates, labels=LABELS)
    alone = [
        fuse(LOGITS, method="median"),
        fuse(LOGITS, method="weighted_average", weights=[1, 0, 0]),
        fuse(LOGITS, method="geometric_mean"),
    ]
    losses = [float(cross_entropy(fusion.logits_NC, LABELS)) for fusion in alone]
    best = losses.index(min(losses))
    assert chosen.diagnostics["fusion/chosen"] == best
    torch.testing.assert_close(chosen.logits_NC, alone[best].logits_NC)
    assert candidates[0] == "median"


def test_scores_stand_in_for_labels() -> None:
    # w = exp(-loss / T) / sum
    found = fuse(
        LOGITS,
        method="weighted_average",
        scores_M=[0.1, 0.2, 0.3],
        weights={"rule": "softmax_score", "temperature": 0.1},
    ).weights
    assert found is not None
    exponentials = np.exp([-1.0, -2.0, -3.0])
    np.testing.assert_allclose(found.numpy(), exponentials / exponentials.sum(), atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"method": "avrage"}, HyperparameterError, "output_fusion has no method 'avrage'. Did you mean average or"),
        ({"method": "base"}, HyperparameterError, "output_fusion has no method 'base'."),
        ({"method": "average", "spaec": "logit"}, HyperparameterError, "output_fusion/average has no field 'spaec'."),
        (
            {"method": "weighted_average", "spaec": "logit"},
            HyperparameterError,
            "output_fusion/weighted_average has no field 'spaec'. Did you mean space?",
        ),
        (
            {"method": "weighted_average", "weights": "nll_optimum"},
            HyperparameterError,
            "weights has no method 'nll_optimum'. Did you mean nll_optimal?",
        ),
        (
            {"method": "weighted_average", "weights": {"rule": "softmax_score", "temprature": 1.0}},
            HyperparameterError,
            "weights/softmax_score has no field 'temprature'. Did you mean temperature?",
        ),
        (
            {"method": "weighted_average", "weights": {"temperature": 1.0}},
            HyperparameterError,
            "`weights` should name its `rule`.",
        ),
        (
            {"method": "weighted_average", "weights": [1, 2]},
            HyperparameterError,
            "`weights.values` should have 3 entries (one a member). Found 2.",
        ),
        (
            {"method": "weighted_average"},
            NeedsContextError,
            "output_fusion/weighted_average with these settings is fitted on labels. `labels` are missing.",
        ),
        ({"method": "weighted_average", "scores_M": [1, 2, 3]}, NeedsContextError, "`labels` are missing"),
        (
            {"method": "weighted_average", "labels": LABELS, "weights": "least_squares_optimal"},
            IncompatibleStrategyError,
            "Did you mean strategy/weights=nll_optimal?",
        ),
        (
            {"method": "temperature_scaled", "inner": "medain"},
            HyperparameterError,
            "output_fusion has no method 'medain'. Did you mean median?",
        ),
        (
            {"method": "temperature_scaled", "inner": {"trim": 0.1}},
            HyperparameterError,
            "`inner` should be given by the name of a method, or a mapping with its `method`. Found {'trim': 0.1}.",
        ),
        (
            {"method": "super_learner", "candidates": ["average", None]},
            HyperparameterError,
            "`candidates` should be given by the name of a method, or a mapping with its `method`. Found None.",
        ),
        (
            {"method": "super_learner", "candidates": "average"},
            HyperparameterError,
            "`candidates` should be a list of one or more strategies.",
        ),
        ({"method": "average", "kind": "clasification"}, HyperparameterError, "`kind` should be one of"),
        ({"method": "average", "labels": LABELS[:5]}, PredictionError, "should have the shape (40,). Found (5,)."),
        (
            {"method": "average", "labels": LABELS + 1},
            PredictionError,
            "should be in [0, 3], or -1 for unlabelled. Found 4.",
        ),
        ({"method": "average", "labels": LABELS.double()}, PredictionError, "Class labels should be integers."),
        ({"method": "average", "scores_M": [1.0]}, PredictionError, "`scores_M` should have the shape (3,)"),
        (
            {"method": "average", "kind": "multilabel", "labels": torch.full((40, 4), 0.5)},
            PredictionError,
            "should be 0 or 1, or NaN for unlabelled. Found 0.5.",
        ),
    ],
)
def test_mistakes_are_answered(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        fuse(LOGITS, **fields)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (LOGITS[0], "Found (40, 4)"),
        ([LOGITS[0], LOGITS[1, :7]], "predict the same examples. Found the shapes (40, 4) of member 0 and (7, 4) of"),
        (3.0, "Predictions should have the shape (members, examples, outputs)"),
        (LOGITS.round().long(), "should be floating-point"),
        (LOGITS.clone().index_fill_(0, torch.tensor([2]), torch.inf), "Member 2 predicts NaN or infinity"),
    ],
)
def test_predictions_that_cannot_be_fused(logits: torch.Tensor, message: str) -> None:
    with pytest.raises(PredictionError, match=re.escape(message)):
        fuse(logits, method="average")


@pytest.mark.parametrize("logits", [[], LOGITS[:0], LOGITS[:0].numpy()])
def test_no_members(logits: Any) -> None:
    with pytest.raises(HyperparameterError, match="at least one member. Found 0 members.") as caught:
        fuse(logits, method="average")
    assert isinstance(caught.value, ValueError)


def test_members_of_other_classes_are_named() -> None:
    message = "Found the shapes (40, 4) of member 0 and (40, 3) of member 2. Do they share the class list?"
    with pytest.raises(IncompatibleStrategyError, match=re.escape(message)):
        fuse([LOGITS[0], LOGITS[1].numpy(), LOGITS[2, :, :3]], method="average")


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_flags_are_true_or_false(value: Any) -> None:
    message = f"`bias` should be true or false. Found `bias = {value!r}`."
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        fuse(LOGITS, method="stacking", labels=LABELS, bias=value)
    with pytest.raises(HyperparameterError, match=re.escape("`normalize` should be true or false. Found")):
        fuse(LOGITS, method="weighted_average", weights={"rule": "given", "values": [1, 1, 1], "normalize": value})


def test_unlabelled_examples_take_no_part() -> None:
    labels = LABELS.clone()
    labels[20:] = -1
    found = fuse(LOGITS, method="weighted_average", labels=labels).weights
    expected = fuse(LOGITS[:, :20], method="weighted_average", labels=LABELS[:20]).weights
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_neither_hydra_nor_lightning_nor_mlflow_is_imported() -> None:
    program = (
        "import sys, torch, transfuse\n"
        "labels = torch.arange(8) % 4\n"
        "logits = torch.randn(3, 8, 4)\n"
        "for rule in ('nll_optimal', 'softmax_score'):\n"
        "    transfuse.fuse(logits, method='weighted_average', labels=labels, weights=rule)\n"
        "heavy = {'hydra', 'omegaconf', 'mlflow', 'lightning', 'pytorch_lightning'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("rule", ["nll_optimal", "softmax_score"])
def test_gradients_stay_outside(rule: str) -> None:
    tracked = LOGITS.clone().requires_grad_()
    fusion = fuse(tracked, method="weighted_average", labels=LABELS, weights=rule)
    assert fusion.weights is not None
    assert not fusion.logits_NC.requires_grad
    assert not fusion.weights.requires_grad
    assert copy.deepcopy(fusion.combiner)(LOGITS[:, :2]).shape == (2, 4)


def test_gradients_of_values_stay_outside() -> None:
    predictions = make_predictions("regression")
    tracked = predictions.logits_MNC.clone().requires_grad_()
    labels = predictions.truth
    fusion = fuse(tracked, method="weighted_average", labels=labels, kind="regression", weights="least_squares_optimal")
    assert fusion.weights is not None
    assert not fusion.weights.requires_grad
    assert copy.deepcopy(fusion.combiner).weights is not None


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_combiner_refuses_another_number_of_members(count: int) -> None:
    combiner = fuse(LOGITS[:count], method="weighted_average", labels=LABELS).combiner
    with pytest.raises(PredictionError, match=f"This combiner fuses {min(count, 3)} members. Found outputs of 5."):
        combiner(torch.zeros(5, 2, 4))
    with pytest.raises(PredictionError, match=r"should have the shape \(members, examples, outputs\). Found \(2, 4\)"):
        combiner(torch.zeros(2, 4))


def test_logits_in_every_form() -> None:
    expected = fuse(LOGITS, method="average").logits_NC
    array = LOGITS.numpy()
    for form in (list(LOGITS), tuple(array), array[::-1], array.astype(">f8"), array[:, ::-1][:, ::-1]):
        torch.testing.assert_close(fuse(form, method="average").logits_NC, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">i4", "int64"])
def test_labels_of_every_integer_type(dtype: str) -> None:
    expected = fuse(LOGITS, method="weighted_average", labels=LABELS).logits_NC
    for labels in (LABELS.numpy().astype(dtype), LABELS.tolist()):
        assert torch.equal(fuse(LOGITS, method="weighted_average", labels=labels).logits_NC, expected)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"method": None}, HyperparameterError, "A method of output_fusion is given by its name. Found None."),
        ({"weights": None}, HyperparameterError, "`weights` should be numbers, the name of a rule, or a mapping"),
        ({"weights": ["a"]}, HyperparameterError, "`weights` should be numbers that torch can hold. Found list."),
        ({"weights": {"rule": None}}, HyperparameterError, "A method of weights is given by its name. Found None."),
        ({"labels": np.array(["a"] * 40)}, PredictionError, "`labels` should be numbers that torch can hold."),
        (
            {"labels": np.array([0] * 40, dtype=object)},
            PredictionError,
            "`labels` should be numbers that torch can hold",
        ),
        ({"labels": LABELS.to(torch.complex64)}, PredictionError, "Labels should be real numbers."),
        ({"scores_M": ["a", "b", "c"]}, PredictionError, "`scores_M` should be numbers that torch can hold."),
    ],
)
def test_input_that_is_no_numbers(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        fuse(LOGITS, **{"method": "weighted_average", "labels": LABELS, **fields})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_logits_are_fused_or_refused(dtype: torch.dtype) -> None:
    largest = min(torch.finfo(dtype).max / 4, 1e100)
    logits = LOGITS.to(dtype, copy=True)
    logits[0, 0, 0], logits[0, 0, 1] = largest / 2, -largest / 2
    for method in ("average", "weighted_average"):
        for kind, labels in (("classification", LABELS), ("multilabel", torch.arange(160).reshape(40, 4) % 2)):
            assert fuse(logits, method=method, kind=kind, labels=labels).logits_NC.isfinite().all()
    logits[2, 7, 0] = -torch.finfo(dtype).max
    with pytest.raises(PredictionError, match=r"Member 2 predicts values above .* first at the example with id 7"):
        fuse(logits, method="average")


def test_weights_are_checked_where_they_are_used() -> None:
    # differences of scores overflow: inf / inf
    with pytest.raises(NonFiniteError, match=r"The weights of Score should be finite. Found \[nan, nan, nan\]"):
        fuse(
            LOGITS, method="weighted_average", scores_M=[1e308, 1e308, 0.0], weights={"rule": "score", "chance": -1e308}
        )
