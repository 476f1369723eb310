from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from transfuse.strategy.weight_fusion import Block, Blocks
from transfuse.strategy.weight_fusion import trimming as module
from transfuse.strategy.weight_fusion.trimming import kept_count, largest, task_vectors

TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def as_blocks(values_KN: Tensor, size: int = 65_536, base: Tensor | None = None, key: str = "w") -> Blocks:
    return Blocks(
        key=key,
        values_K=tuple(values_KN),
        base=torch.zeros_like(values_KN[0]) if base is None else base,
        dtype=torch.float64 if values_KN.dtype == torch.float64 else torch.float32,
        size=size,
    )


def first(values: np.ndarray, count: int) -> np.ndarray:
    """The mask by a stable sort: of equal magnitudes the smaller index first."""
    mask = np.zeros(values.size, dtype=bool)
    mask[np.argsort(-np.abs(values), kind="stable")[:count]] = True
    return mask


def one_outlier(values_N: np.ndarray) -> np.ndarray:
    values_N = np.full(values_N.shape, 1e-3)
    values_N[..., -1] = 1e3
    return values_N


def sparse(values_N: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values_N) > 1.6, values_N, -0.0)


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "random": lambda values_N: values_N,
    "few_values": lambda values_N: np.round(values_N),
    "all_equal": np.ones_like,
    "all_zero": np.zeros_like,
    "sorted": lambda values_N: np.sort(values_N),
    "reversed": lambda values_N: np.sort(values_N)[..., ::-1].copy(),
    "zeros": sparse,
    "one_outlier": one_outlier,
    "subnormal": lambda values_N: values_N * 1e-42,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_masks_are_those_of_a_stable_sort(kind: str, dtype: torch.dtype) -> None:
    for num_elements in (1, 2, 7, 99, 100, 101, 3000):
        stream = np.random.default_rng(num_elements)
        values_KN = torch.from_numpy(KINDS[kind](stream.normal(size=(2, num_elements)))).to(dtype)
        computed_KN = values_KN.to(torch.float64 if dtype == torch.float64 else torch.float32)
        counts = sorted({0, 1, num_elements // 5, num_elements // 2, num_elements - 1, num_elements})
        for sample in (65_536, 32):  # all in memory; a sample, a bracket, and where it misleads other passes
            found = largest([as_blocks(values_KN, size=999)], [counts] * 2, sample=sample, most=sample)
            for row_N, cuts in zip(computed_KN, found, strict=True):
                for count, cut in zip(counts, cuts, strict=True):
                    expected_N = first(row_N.numpy(), count)
                    assert (cut.keeps(row_N).numpy() == expected_N).all()
                    assert int(cut.keeps(row_N).sum()) == count


def test_a_tensor_of_bfloat16_over_several_leaves() -> None:
    stream = torch.Generator().manual_seed(0)
    base_N = (0.02 * torch.randn(300_001, generator=stream)).bfloat16()
    values_KN = (base_N.float() + 0.002 * torch.randn(3, 300_001, generator=stream)).bfloat16()
    count = kept_count(0.2, 300_001)
    deltas_KN = values_KN.float() - base_N.float()
    for delta_N, (cut,) in zip(deltas_KN, largest([as_blocks(values_KN, base=base_N)], [[count]] * 3), strict=True):
        equal = int((delta_N.abs() == cut.threshold).sum())
        assert equal > 1000  # the threshold is shared: a value alone could not say what is kept
        assert (cut.keeps(delta_N).numpy() == first(delta_N.numpy(), count)).all()


@pytest.mark.parametrize("size", [1, 7, 4096, 9000])
def test_blocks_change_nothing(size: int) -> None:
    num_elements = 9000 if size > 1 else 900
    values_KN = torch.randn(2, num_elements, generator=torch.Generator().manual_seed(1)).bfloat16()
    counts = [[num_elements // 90, num_elements // 5], [num_elements - 1, num_elements // 2]]
    whole = largest([as_blocks(values_KN)], counts)
    assert largest([as_blocks(values_KN, size=size)], counts) == whole
    assert largest([as_blocks(values_KN, size=size)], counts, sample=50, most=50) == whole


@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_several_tensors_are_one_vector(kind: str) -> None:
    values_N = torch.from_numpy(KINDS[kind](np.random.default_rng(2).normal(size=2000))).float()
    pieces = [as_blocks(part[None], key=str(index)) for index, part in enumerate(values_N.split([1, 999, 0, 600, 400]))]
    for sample in (5000, 100):
        (cuts,) = largest(pieces, [[300, 1700]], sample=sample, most=sample)
        for count, cut in zip((300, 1700), cuts, strict=True):
            expected_N = first(values_N.numpy(), count)
            assert (cut.keeps(values_N).numpy() == expected_N).all()
            assert (cut.shifted(1000).keeps(values_N[1000:]).numpy() == expected_N[1000:]).all()


def test_a_good_sample_needs_one_pass_and_a_bad_one_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(walk: module._RowWalk, count: int) -> module.Cut:
        calls.append(count)
        return radix_cut(walk, count)

    radix_cut = module.radix_cut
    monkeypatch.setattr(module, "radix_cut", counted)
    stream = np.random.default_rng(3)
    plain_N = stream.normal(size=20_000)
    misleading_N = plain_N.copy()
    misleading_N[:: 20_000 // 1000 | 1] = 50.0  # what is sampled is larger than all else
    for values_N, missed in ((plain_N, []), (misleading_N, [4000])):
        calls.clear()
        ((cut,),) = largest([as_blocks(torch.from_numpy(values_N)[None])], [[4000]], sample=1000, most=4000)
        assert calls == missed
        assert (cut.keeps(torch.from_numpy(values_N)).numpy() == first(values_N, 4000)).all()


def test_any_score_can_be_ranked() -> None:
    values_KN = torch.randn(3, 500, generator=torch.Generator().manual_seed(4))

    def spread(block: Block) -> Tensor:
        return (block.values_KB.amax(0) - block.values_KB.amin(0))[None]

    ((cut,),) = largest([as_blocks(values_KN, size=64)], [[50]], spread)
    score_N = values_KN.amax(0) - values_KN.amin(0)
    assert (cut.keeps(score_N).numpy() == first(score_N.numpy(), 50)).all()


def test_task_vectors_are_new_and_float32() -> None:
    blocks = as_blocks(torch.tensor([[1.5, 2.0]]).bfloat16(), base=torch.tensor([1.0, 4.0]).bfloat16())
    (block,) = blocks
    deltas_KB = task_vectors(block)
    assert deltas_KB.dtype == torch.float32 and deltas_KB.tolist() == [[0.5, -2.0]]
    deltas_KB.zero_()
    assert block.values_KB.tolist() == [[1.5, 2.0]]


def test_samples_are_every_nth_element() -> None:
    blocks = as_blocks(torch.arange(20.0).reshape(2, 5, 2), base=torch.ones(5, 2))
    sampled = blocks.every(3, 1)
    assert sampled.values_KB.tolist() == [[1.0, 4.0, 7.0], [11.0, 14.0, 17.0]]
    assert sampled.base_B is not None and sampled.base_B.tolist() == [1.0, 1.0, 1.0]
