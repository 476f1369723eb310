"""What DARE and DELLA share: unbiased masks that depend on seed, model, name and element alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion import DareLinear, DareTies, Della, DellaLinear, merge
from transfuse.strategy.weight_fusion.chance import limit, limits
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.types import HyperparameterError, MissingBaseError, StateDictMismatch

LINEAR = [DareLinear(density=0.3), DellaLinear(density=0.5, epsilon=0.3), DellaLinear(rank_over="tensor")]
ALL = [*LINEAR, DareTies(), Della()]


def named(method: object) -> str:
    return type(method).__name__


def states(count: int = 3, seed: int = 0, shape: tuple[int, ...] = (6, 5)) -> list[dict[str, torch.Tensor]]:
    stream = torch.Generator().manual_seed(seed)
    return [{"w": torch.randn(shape, generator=stream, dtype=torch.float64)} for _ in range(count)]


@pytest.mark.parametrize("method", LINEAR, ids=named)
def test_the_expectation_over_400_masks_is_task_arithmetic(method) -> None:
    *models, base = states(4)
    merged = torch.stack([method.merged(models, base, seed=seed)["w"] for seed in range(400)])
    expected = base["w"] + sum(model["w"] - base["w"] for model in models)
    error = merged.std(0) / 400**0.5
    deviations = ((merged.mean(0) - expected) / error).abs()
    assert deviations.max() < 3.9  # 30 elements: 3 standard errors each, in the worst of them by chance
    assert (deviations < 3).double().mean() > 0.95
    assert (merged.mean() - expected.mean()).abs() < 3 * merged.mean((1, 2)).std() / 400**0.5


@pytest.mark.parametrize("method", [DareLinear(density=0.3), DellaLinear(density=0.5, epsilon=0.3)], ids=named)
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_without_the_inverse_the_expectation_is_another(method, rescale: str) -> None:
    fields = {"density": method.density, "rescale": rescale}
    biased = type(method)(**fields, **({"epsilon": 0.3} if isinstance(method, DellaLinear) else {}))
    base, model = {"w": torch.zeros(1000)}, {"w": torch.arange(1.0, 1001.0)}
    merged = torch.stack([biased.merged([model], base, seed=seed)["w"] for seed in range(100)])
    share = float(merged.sum() / (100 * model["w"].sum()))
    if rescale == "l1":
        assert share == pytest.approx(1.0, rel=1e-6)
        return
    values = np.arange(1.0, 1001.0)
    probabilities = np.full(1000, 0.3) if isinstance(method, DareLinear) else 0.2 + 0.6 * np.arange(1000) / 999
    error = (probabilities * (1 - probabilities) * values**2).sum() ** 0.5 / values.sum() / 20**0.5
    assert abs(share - (probabilities * values).sum() / values.sum()) < 3 * error


@pytest.mark.parametrize("method", ALL, ids=named)
def test_masks_depend_on_seed_model_and_name_alone(method) -> None:
    *models, base = states(4, shape=(40, 30))
    first = method.merged(models, base, seed=1)["w"]
    assert torch.equal(method.merged(models, base, seed=1)["w"], first)
    assert not torch.equal(method.merged(models, base, seed=2)["w"], first)
    beside = [{"a": torch.ones(7), **model} for model in models]
    assert torch.equal(method.merged(beside, {"a": torch.zeros(7), **base}, seed=1)["w"], first)
    renamed = [{"v": model["w"]} for model in models]
    assert not torch.equal(method.merged(renamed, {"v": base["w"]}, seed=1)["v"], first)
    turned = method.merged(models[::-1], base, seed=1)["w"]
    assert not torch.equal(turned, first)


def test_models_have_masks_of_their_own() -> None:
    model, base = {"w": torch.ones(4000)}, {"w": torch.zeros(4000)}
    counts = DareLinear(rescale="none").merged([model, model], base)["w"]
    shares = [(counts == count).double().mean().item() for count in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=3 * (0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("method", ALL, ids=named)
def test_a_shift_of_everything_shifts_the_result(method) -> None:
    *models, base = states(4)
    shifted = method.merged([{"w": model["w"] + 3} for model in models], {"w": base["w"] + 3})["w"]
    torch.testing.assert_close(shifted, method.merged(models, base)["w"] + 3, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ALL, ids=named)
@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_limits_give_the_base_bit_for_bit(method, rescale: str) -> None:
    *models, base = states(4)
    merged = merge([base, base], method=method.name.partition("/")[2], base=base, rescale=rescale)
    assert torch.equal(merged["w"], base["w"])
    unscaled = merge(models, method=method.name.partition("/")[2], base=base, rescale=rescale, scale=0.0)
    assert torch.equal(unscaled["w"], base["w"])


@pytest.mark.parametrize("method", ALL, ids=named)
def test_masks_that_are_handed_in_decide(method) -> None:
    *models, base = states(4)
    keep = [{"w": torch.zeros(6, 5, dtype=torch.bool)} for _ in models]
    assert torch.equal(method.merged(models, base, masks=keep)["w"], base["w"])
    with pytest.raises(StateDictMismatch, match="`masks` should hold one mapping for each of 3 models. Found 2"):
        method.merged(models, base, masks=keep[:2])


@pytest.mark.parametrize("method", [DareTies(density=0.6), Della(density=0.6)], ids=named)
@pytest.mark.parametrize("merging", ["mean", "sum", "max"])
def test_the_election_is_among_what_was_kept(method, merging: str) -> None:
    *models, base = states(4, shape=(50, 7))
    keep = [{"w": torch.rand(50, 7, generator=torch.Generator().manual_seed(index)) < 0.6} for index in range(3)]
    weights = (0.5, 1.0, 0.7)
    fields = {"density": 0.6, "rescale": "none", "merge": merging, "weights": weights, "scale": 0.8}
    merged = type(method)(**fields).merged(models, base, masks=keep)["w"]
    pairs = zip(models, weights, keep, strict=True)
    votes = np.stack([((model["w"] - base["w"]) * weight * mask["w"]).numpy() for model, weight, mask in pairs])
    sign = np.where(votes.sum(0) < 0, -1.0, 1.0)
    agree = votes * sign > 0
    shares = (agree * np.array(weights)[:, None, None]).sum(0)
    total = (votes * agree).sum(0)
    mean = np.divide(total, shares, out=np.zeros_like(total), where=shares > 0)
    largest = np.abs(votes * agree).max(0) * sign
    expected = base["w"].numpy() + 0.8 * {"mean": mean, "sum": total, "max": largest}[merging]
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "method", [DareLinear(density=0.1), DareTies(rescale="l1"), DellaLinear(), Della(rescale="l1")], ids=named
)
def test_blocks_change_no_mask(method) -> None:
    for num_elements, size in ((101, 1), (101, 7), (200_001, 7777)):
        *models, base = states(3, shape=(num_elements,))
        whole = merge_state_dicts(method, models, names=["a", "b"], base=base)["w"]
        cut = merge_state_dicts(method, models, names=["a", "b"], base=base, size=size)["w"]
        assert torch.equal(whole, cut)


@pytest.mark.parametrize("method", ALL, ids=named)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_rounded_once_and_inputs_stay(method, dtype: torch.dtype, digest) -> None:
    *models, base = ({"w": state["w"].to(dtype)} for state in states(4, shape=(40, 30)))
    before = [digest(state) for state in (*models, base)]
    merged = method.merged(models, base, seed=3)["w"]
    assert merged.dtype == dtype and [digest(state) for state in (*models, base)] == before
    exact = method.merged([{"w": model["w"].double()} for model in models], {"w": base["w"].double()}, seed=3)["w"]
    torch.testing.assert_close(merged, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_a_word_below_the_probability_keeps() -> None:
    words = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], dtype=np.int64)
    for probability in (2.0**-32, 0.25, 0.5, 0.5 + 2.0**-32, 1 - 2.0**-32, 1.0, 1e-12):
        kept = words - 2**31 <= limit(probability)
        assert kept.tolist() == [word < probability * 2**32 for word in words.tolist()]
    assert limits(np.array([0.5, 1.0])).tolist() == [limit(0.5), limit(1.0)]


def test_bad_input_is_told() -> None:
    for density in (0, -1, 1.2):
        with pytest.raises(HyperparameterError, match=rf"`density` should be in \(0, 1\]. Found `density = {density}`"):
            DareLinear(density=density)
    with pytest.raises(HyperparameterError, match="`rescale` should be inverse, l1 or none. Found `rescale = l2`"):
        DareTies(rescale="l2")  # type: ignore[arg-type]
    with pytest.raises(MissingBaseError, match="dare_linear needs the weights that all models started from"):
        merge(states(2), method="dare_linear")
    with pytest.raises(HyperparameterError, match="`weights` should have 3 entries"):
        merge(states(3), method="dare_linear", base=states(1)[0], weights=[1.0])
