"""What a per-tensor method can rely on, shown with methods written here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from transfuse.leaves import pairwise_sum
from transfuse.strategy.weight_fusion import Block, Blocks, ModelCountError, TensorFusion
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.types import HyperparameterError, MissingBaseError, NeedsContextError, NonFiniteError, StateDictMismatch


@dataclass(frozen=True, kw_only=True)
class Rescaled(TensorFusion):
    """b + sum_i d_i / ||sum_i d_i||: a reduction, then a map."""

    base: ClassVar[Need] = "required"
    least: ClassVar[int] = 2

    def survey(self, blocks: Iterable[Block]) -> float:
        for _ in blocks:  # a second pass is allowed
            pass
        return float(pairwise_sum([self._delta(block).double().square().sum() for block in blocks]).sqrt())

    def fuse_block(self, block: Block, survey: float) -> Tensor:
        assert block.base_B is not None
        return block.base_B + self._delta(block) / survey

    def _delta(self, block: Block) -> Tensor:
        assert block.base_B is not None
        return (block.values_KB - block.base_B).sum(0)


@dataclass(frozen=True, kw_only=True)
class Dropped(TensorFusion):
    """Each model's elements are kept at random."""

    masks: ClassVar[Need] = "optional"

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        masks_KB = block.masks_KB
        if masks_KB is None:
            words = [block.random_words("drop", model) for model in range(len(block.values_KB))]
            masks_KB = torch.from_numpy(np.stack(words) < 2**31)
        return (block.values_KB * masks_KB).sum(0)


@dataclass(frozen=True, kw_only=True)
class Weighted(TensorFusion):
    """sum_i F_i x_i / sum_i F_i."""

    statistics: ClassVar[Need] = "required"

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        if block.statistics is None:
            return block.values_KB.mean(0)
        statistics_KB = torch.stack(block.statistics)
        return (statistics_KB * block.values_KB).sum(0) / statistics_KB.sum(0)


@dataclass(frozen=True, kw_only=True)
class Largest(TensorFusion):
    """The rank-1 part of the mean: a matrix method."""

    whole: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        left, values, right = torch.linalg.svd(block.values_KB.mean(0).reshape(block.shape), full_matrices=False)
        return (values[0] * torch.outer(left[:, 0], right[0])).reshape(-1)


def states(count: int, *shape: int) -> list[dict[str, Tensor]]:
    stream = torch.Generator().manual_seed(0)
    return [{"w": torch.randn(shape, generator=stream)} for _ in range(count)]


def test_a_survey_sees_the_whole_tensor_whatever_the_blocks() -> None:
    models, base = states(3, 70_001), states(4, 70_001)[3]
    merged = Rescaled().merged(models, base)
    delta = sum(model["w"].double() - base["w"].double() for model in models)
    torch.testing.assert_close(merged["w"].double(), base["w"] + delta / delta.norm(), rtol=1e-6, atol=1e-6)
    for size in (7, 4096):
        cut = merge_state_dicts(Rescaled(), models, names=["a", "b", "c"], base=base, size=size)
        assert torch.equal(cut["w"], merged["w"])


def test_a_required_base_is_asked_for() -> None:
    with pytest.raises(MissingBaseError, match="Pass them as `base`"):
        Rescaled().merged(states(2, 3))


def test_the_base_is_checked_too() -> None:
    with pytest.raises(StateDictMismatch, match=r"`w` is \(3,\) in model 0 and \(4,\) in base"):
        Rescaled().merged(states(2, 3), {"w": torch.zeros(4)})
    with pytest.raises(NonFiniteError, match="`w` of base has 3 of 3"):
        Rescaled().merged(states(2, 3), {"w": torch.full((3,), torch.inf)})


def test_the_number_of_models_is_checked() -> None:
    with pytest.raises(ModelCountError, match=r"fuses at least 2 models. Found 1") as error:
        Rescaled().merged(states(1, 3), states(1, 3)[0])
    assert isinstance(error.value, ValueError)
    with pytest.raises(ModelCountError, match=r"fuses exactly 2 models. Found 3"):
        Largest().merged(states(3, 3, 3))


def test_random_words_depend_on_seed_model_key_and_element_alone() -> None:
    def words(size: int, *, seed: int = 0, key: str = "w", model: int = 0, purpose: str = "drop") -> np.ndarray:
        values_K = (torch.zeros(101),)
        blocks = Blocks(key=key, values_K=values_K, base=None, dtype=torch.float32, size=size, seed=seed)
        return np.concatenate([block.random_words(purpose, model) for block in blocks])

    whole = words(101)
    assert whole.dtype == np.uint32 and len(np.unique(whole)) == 101
    for size in (1, 2, 7, 50):
        np.testing.assert_array_equal(words(size), whole)
    for other in (words(101, seed=1), words(101, key="v"), words(101, model=1), words(101, purpose="noise")):
        assert (other == whole).sum() <= 1


def test_random_words_are_uniform() -> None:
    block = next(iter(Blocks(key="w", values_K=(torch.zeros(60_000),), base=None, dtype=torch.float32)))
    words = block.random_words("drop", 0).astype(np.float64) / 2**32
    counts, _ = np.histogram(words, bins=20, range=(0, 1))
    assert ((counts - 3000) ** 2 / 3000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001


def test_random_methods_repeat_with_the_seed() -> None:
    models = states(2, 50)
    first, again, other = (Dropped().merged(models, seed=seed)["w"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_masks_that_are_handed_in_are_used() -> None:
    models = states(2, 70_000)
    masks = [{"w": torch.arange(70_000) % 2 == model} for model in range(2)]
    merged = Dropped().merged(models, masks=masks)["w"]
    assert torch.equal(merged, torch.where(masks[0]["w"], models[0]["w"], models[1]["w"]))


def test_statistics_are_cut_with_the_tensor() -> None:
    models = [state | {"free": torch.tensor([float(index)])} for index, state in enumerate(states(2, 70_000))]
    statistics = [{"w": state["w"].abs() + 0.1} for state in states(4, 70_000)[2:]]
    merged = Weighted().merged(models, statistics=statistics)
    shares = [mapping["w"].double() for mapping in statistics]
    expected = (shares[0] * models[0]["w"] + shares[1] * models[1]["w"]) / (shares[0] + shares[1])
    torch.testing.assert_close(merged["w"].double(), expected, rtol=1e-5, atol=1e-6)
    assert merged["free"].item() == 0.5


def test_what_is_measured_must_fit() -> None:
    models = states(2, 3)
    with pytest.raises(NeedsContextError, match="needs `statistics`"):
        Weighted().merged(models)
    with pytest.raises(StateDictMismatch, match=r"one mapping for each of 2 models. Found 1"):
        Weighted().merged(models, statistics=[{"w": torch.ones(3)}])
    with pytest.raises(StateDictMismatch, match=r"`w` is \(3,\) in model 0 and \(4,\) in `statistics` of model 1"):
        Weighted().merged(models, statistics=[{"w": torch.ones(3)}, {"w": torch.ones(4)}])
    with pytest.raises(StateDictMismatch, match="`v` is in `statistics` of model 0, but not in every model"):
        Weighted().merged(models, statistics=[{"v": torch.ones(3)}, {"v": torch.ones(3)}])
    with pytest.raises(HyperparameterError, match="does not use `masks`"):
        Weighted().merged(models, statistics=[{}, {}], masks=[{}, {}])


def test_matrix_methods_get_the_tensor_at_once() -> None:
    models = states(2, 300, 250)
    merged = Largest().merged(models)["w"]
    left, values, right = np.linalg.svd((models[0]["w"].double() + models[1]["w"].double()).numpy() / 2)
    np.testing.assert_allclose(merged.numpy(), values[0] * np.outer(left[:, 0], right[0]), atol=1e-4)
