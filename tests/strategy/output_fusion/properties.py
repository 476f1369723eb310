"""What every method of output fusion must satisfy: one `assert_*` function a property."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from safetensors.torch import save
from torch import Tensor

from tests.strategy.output_fusion.inputs import probabilities
from transfuse.randomness import make_generator
from transfuse.strategy.output_fusion import Combiner, OutputFusion
from transfuse.strategy.predictions import Predictions


def fresh(predictions: Predictions) -> Predictions:
    """The same predictions with a generator in its first state, so that repeated fits see the same chance."""
    return replace(predictions, generator=make_generator("properties"))


def combined(strategy: OutputFusion, predictions: Predictions) -> Combiner:
    return strategy.combine(fresh(predictions)).eval()


@torch.no_grad()
def fused(strategy: OutputFusion, predictions: Predictions) -> Tensor:
    return combined(strategy, predictions)(predictions.logits_MNC)


def close(found: Tensor, expected: Tensor, *, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


def assert_valid_logits(strategy: OutputFusion, predictions: Predictions) -> None:
    """Outputs are finite, of the members' shape and dtype, and for classification log-probabilities."""
    output_NC = fused(strategy, predictions)
    assert output_NC.shape == predictions.logits_MNC.shape[1:]
    assert output_NC.dtype == predictions.logits_MNC.dtype
    assert output_NC.isfinite().all()
    if predictions.kind == "classification":
        tolerance = 1e-6 if output_NC.dtype == torch.float64 else 1e-5
        close(output_NC.exp().sum(1), torch.ones(len(output_NC)), tolerance=tolerance)


def assert_identical_members_give_that_member(strategy: OutputFusion, predictions: Predictions) -> None:
    first_1NC = predictions.logits_MNC[:1]
    expected = probabilities(first_1NC[0], predictions.kind)
    for copies in (1, 3):
        same = replace(predictions, logits_MNC=first_1NC.repeat(copies, 1, 1))
        close(probabilities(fused(strategy, same), predictions.kind), expected)


def assert_order_of_members_is_irrelevant(strategy: OutputFusion, predictions: Predictions) -> None:
    order = torch.randperm(predictions.num_members, generator=make_generator("order"))
    permuted = replace(predictions, logits_MNC=predictions.logits_MNC[order])
    close(fused(strategy, permuted), fused(strategy, predictions))
    before, after = combined(strategy, predictions).weights, combined(strategy, permuted).weights
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        close(after, before[order])


def assert_classes_permute_with_labels(strategy: OutputFusion, predictions: Predictions) -> None:
    order = torch.randperm(predictions.logits_MNC.shape[2], generator=make_generator("classes"))
    labels = predictions.truth
    moved = order.argsort()[labels] if predictions.kind == "classification" else labels[:, order]
    permuted = replace(predictions, logits_MNC=predictions.logits_MNC[:, :, order], labels=moved)
    close(fused(strategy, permuted), fused(strategy, predictions)[:, order])


@torch.no_grad()
def assert_batches_are_irrelevant(strategy: OutputFusion, predictions: Predictions) -> None:
    combiner = combined(strategy, predictions)
    parts = [
        combiner(part) for part in predictions.logits_MNC.split([1, 7, predictions.logits_MNC.shape[1] - 8], dim=1)
    ]
    close(torch.cat(parts), combiner(predictions.logits_MNC))


def assert_inputs_are_untouched(strategy: OutputFusion, predictions: Predictions) -> None:
    logits_MNC, labels = predictions.logits_MNC.clone(), predictions.truth.clone()
    fused(strategy, predictions)
    assert torch.equal(predictions.logits_MNC, logits_MNC)
    assert torch.equal(predictions.truth, labels)


@torch.no_grad()
def assert_unused_members_have_no_influence(strategy: OutputFusion, predictions: Predictions) -> None:
    combiner = combined(strategy, predictions)
    without = predictions.logits_MNC.clone()
    for member in combiner.unused:
        without[member] = 0.0
    assert torch.equal(combiner(without), combiner(predictions.logits_MNC))


@torch.no_grad()
def assert_state_dict_holds_the_combiner(strategy: OutputFusion, predictions: Predictions) -> None:
    combiner = combined(strategy, predictions)
    blank = copy.deepcopy(combiner)
    for tensor in blank.state_dict().values():
        tensor.zero_()
    blank.load_state_dict(combiner.state_dict())
    assert torch.equal(blank(predictions.logits_MNC), combiner(predictions.logits_MNC))


def assert_weights_are_on_the_simplex(strategy: OutputFusion, predictions: Predictions) -> None:
    weights = combined(strategy, predictions).weights
    if weights is not None and weights.ndim == 1:
        assert weights.dtype == torch.float64
        assert (weights >= 0).all()
        assert abs(float(weights.sum()) - 1) < 1e-12


def assert_state_can_be_saved(strategy: OutputFusion, predictions: Predictions) -> None:
    """Tensors are contiguous and own their storage, as safetensors wants them."""
    assert save(combined(strategy, predictions).state_dict())
