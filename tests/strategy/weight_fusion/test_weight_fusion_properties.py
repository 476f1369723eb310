"""Laws that hold for every per-tensor weight fusion: properties x cases x inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import merge_state_dicts

Make = Callable[[int], dict[str, Tensor]]
STATISTICS = ("norm.running_mean", "norm.running_var")
EPSILON = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 1e-6, torch.float64: 1e-12}


def as_float64(value: Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def weights(state: dict[str, Tensor]) -> list[str]:
    return [key for key, value in state.items() if value.is_floating_point() and key not in STATISTICS]


def small(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if value.numel() <= 101}


def fused(case, states, base):
    return case.method.merged(states, None if case.method.base == "unused" else base, case.measured(states))


def test_equals_the_formula_in_float64_rounded_once(case, make_state: Make) -> None:
    if case.reference is None:
        pytest.skip("the formula needs more than the values of one tensor")
    states, base = [make_state(index) for index in range(case.models)], make_state(9)
    merged = fused(case, states, base)
    for key in weights(states[0]):
        values_KB = np.stack([as_float64(state[key]).reshape(-1) for state in states])
        expected = case.reference(values_KB, as_float64(base[key]).reshape(-1)).reshape(states[0][key].shape)
        rounded = torch.from_numpy(np.asarray(expected)).to(states[0][key].dtype)
        tolerance = 2 * EPSILON[states[0][key].dtype]
        # differences of weights cancel: their rounding is relative to the weights, not to the result
        size = np.abs(values_KB).sum(0) + (0 if case.method.base == "unused" else np.abs(as_float64(base[key])).ravel())
        inexact = 2.0**-22 * size.reshape(expected.shape)
        difference = np.abs(as_float64(merged[key]) - as_float64(rounded))
        assert (difference <= tolerance * np.abs(expected) + np.maximum(1e-7, inexact)).all(), key
        if states[0][key].dtype in (torch.bfloat16, torch.float16) and expected.size > 1000:
            # where the exact result lies between two numbers (0.3 times 5 units), the last digit decides
            below, above = (torch.from_numpy(expected + step * inexact).to(rounded.dtype) for step in (-1, 1))
            assert ((merged[key] == rounded) | (below != above)).double().mean() >= 0.998, key


def test_layout_is_the_first_models(case, make_state: Make) -> None:
    states, base = [make_state(index) for index in range(case.models)], make_state(9)
    merged = fused(case, states, base)
    assert list(merged) == list(states[0])
    for key, value in merged.items():
        assert (value.shape, value.dtype) == (states[0][key].shape, states[0][key].dtype)
        assert not value.requires_grad and value.grad_fn is None and value.is_contiguous()


def test_inputs_are_not_changed_and_share_no_storage(case, make_state: Make, digest) -> None:
    states, base = [make_state(index) for index in range(case.models)], make_state(9)
    before = [digest(state) for state in [*states, base]]
    merged = fused(case, states, base)
    assert [digest(state) for state in [*states, base]] == before
    places = {value.untyped_storage().data_ptr() for state in [*states, base] for value in state.values()} - {0}
    assert places.isdisjoint({value.untyped_storage().data_ptr() for value in merged.values()})
    for value in merged.values():
        value.zero_()
    assert [digest(state) for state in [*states, base]] == before


def test_ties_stay_tied(case, make_state: Make) -> None:
    merged = fused(case, [make_state(index) for index in range(case.models)], make_state(9))
    assert merged["tied"].data_ptr() == merged["embedding"].data_ptr()


def test_integers_are_copied_and_counters_are_the_first_models(case, make_state: Make) -> None:
    merged = fused(case, [make_state(index) for index in range(case.models)], make_state(9))
    assert merged["norm.num_batches_tracked"].item() == 7
    assert merged["position_ids"].tolist() == [0, 1, 2, 3, 4, 5] and merged["mask"].tolist() == [True, False]


def test_statistics_follow_the_law_of_total_variance(case, make_state: Make) -> None:
    states = [make_state(index) for index in range(case.models)]
    merged = fused(case, states, make_state(9))
    means_KF = np.stack([as_float64(state["norm.running_mean"]) for state in states])
    variances_KF = np.stack([as_float64(state["norm.running_var"]) for state in states])
    tolerance = EPSILON[states[0]["norm.running_mean"].dtype]
    np.testing.assert_allclose(as_float64(merged["norm.running_mean"]), means_KF.mean(0), rtol=tolerance)
    pooled = (variances_KF + means_KF**2).mean(0) - means_KF.mean(0) ** 2
    np.testing.assert_allclose(as_float64(merged["norm.running_var"]), pooled, rtol=tolerance)


@pytest.mark.parametrize("size", [1, 7, 4096, 70_000])
def test_blocks_change_no_bit(case, make_state: Make, size: int) -> None:
    states = [make_state(index) for index in range(8 if case.method.most is None else case.models)]
    base = None if case.method.base == "unused" else make_state(9)
    if size < 100:
        states = [small(state) for state in states]
        base = None if base is None else small(base)
    names = [f"model {index}" for index in range(len(states))]
    measured = Measured(statistics=case.measured(states))
    whole = merge_state_dicts(case.method, states, names=names, base=base, measured=measured)
    cut = merge_state_dicts(case.method, states, names=names, base=base, measured=measured, size=size)
    for key, value in whole.items():
        assert torch.equal(value, cut[key]), key


def test_one_model_gives_itself(case, make_state: Make) -> None:
    if not case.linear:
        pytest.skip("its formula says otherwise")
    state = make_state(1)
    for key, value in fused(case, [state], make_state(9)).items():
        torch.testing.assert_close(value, state[key].detach().contiguous(), rtol=1e-6, atol=0)


def test_equal_models_give_that_model(case, make_state: Make) -> None:
    if not case.linear:
        pytest.skip("its formula says otherwise")
    state = make_state(1)
    merged = fused(case, [state] * 5, make_state(9))
    for key in weights(state):
        relative = max(1e-6, EPSILON[state[key].dtype]) if state[key].dtype != torch.float64 else 1e-12
        torch.testing.assert_close(merged[key], state[key].detach().contiguous(), rtol=relative, atol=0)


def test_order_of_models_does_not_matter(case) -> None:
    if not case.symmetric:
        pytest.skip("its formula says otherwise")
    from itertools import permutations

    stream = np.random.default_rng(0)
    states = [{"w": torch.from_numpy(stream.normal(size=50))} for _ in range(min(4, case.models + 1))]
    base = {"w": torch.from_numpy(stream.normal(size=50))}
    first = fused(case, states, base)["w"]
    for order in permutations(range(len(states))):
        other = fused(case, [states[index] for index in order], base)["w"]
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-14)
