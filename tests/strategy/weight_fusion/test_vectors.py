from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion.block import Blocks
from transfuse.strategy.weight_fusion.vectors import Coefficients, Over, _gram, combine, cosines, grams, rectangles

SHAPES = [(), (1,), (7,), (1, 5), (5, 1), (6, 4), (3, 4, 2, 2)]


def blocks_of(
    shape: tuple[int, ...], *, with_base: bool, size: int = 65_536, dtype: torch.dtype = torch.float64
) -> Blocks:
    stream = torch.Generator().manual_seed(3)
    values = [torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype) for _ in range(4)]
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return Blocks(key="w", values_K=tuple(values[:3]), base=values[3] if with_base else None, dtype=compute, size=size)


def vectors_of(blocks: Blocks, over: Over) -> np.ndarray:
    """(V, K, n) vectors of the models, or of their task vectors."""
    values = np.stack([value.double().numpy() for value in blocks.values_K])
    values = values if blocks.base is None else values - blocks.base.double().numpy()
    if over == "tensor" or values.ndim < 3:
        return values.reshape(1, 3, -1)
    matrices = values.reshape(3, values.shape[1], -1)
    return matrices.transpose(1, 0, 2) if over == "row" else matrices.transpose(2, 0, 1)


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("over", ["tensor", "row", "column"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_inner_products_of_each_vector(shape: tuple[int, ...], over: Over, with_base: bool, size: int) -> None:
    blocks = blocks_of(shape, with_base=with_base, size=size)
    vectors = vectors_of(blocks, over)
    np.testing.assert_allclose(grams(blocks, over), vectors @ vectors.transpose(0, 2, 1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("over", ["tensor", "row", "column"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_each_vector_has_its_coefficients(shape: tuple[int, ...], over: Over, with_base: bool, size: int) -> None:
    blocks = blocks_of(shape, with_base=with_base, size=size)
    vectors = vectors_of(blocks, over)
    factors = np.random.default_rng(0).normal(size=vectors.shape[:2])
    summed = np.einsum("vk,vkn->vn", factors, vectors)
    expected = (summed.T if over == "column" and len(shape) > 1 else summed).reshape(-1)
    if blocks.base is not None:
        expected = expected + blocks.base.reshape(-1).numpy()
    coefficients = Coefficients.of(torch.from_numpy(factors), blocks)
    found = torch.cat([combine(block, coefficients, over) for block in blocks])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_rectangles_cover_a_block_in_order() -> None:
    for block in blocks_of((6, 4), with_base=False, size=7):
        pieces = [part.piece for part in rectangles(block, "row")]
        assert pieces[0].start == 0 and pieces[-1].stop == block.values_KB.shape[1]
        assert all(first.stop == second.start for first, second in itertools.pairwise(pieces))


def test_values_are_not_written_to() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        blocks = blocks_of((6, 4), with_base=True, dtype=dtype)
        coefficients = Coefficients.of(torch.ones(1, 3, dtype=torch.float64), blocks)
        for block in blocks:
            before = block.values_KB.clone()
            combine(block, coefficients)
            _gram(block, block.values_KB.dtype)
            assert torch.equal(block.values_KB, before)


def test_only_short_inputs_whose_terms_do_not_cancel_are_summed_in_float32() -> None:
    mild, large = torch.tensor([[0.5, 0.5, 0.0]]).double(), torch.tensor([[9.0, -9.0, 1.0]]).double()
    short, full = (blocks_of((4,), with_base=True, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert Coefficients.of(mild, short).dtype == torch.float32
    assert Coefficients.of(large, short).dtype == Coefficients.of(mild, full).dtype == torch.float64


def test_cosines_are_bounded_and_0_with_a_zero_vector() -> None:
    gram = torch.tensor([[4.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]).double()
    expected = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert cosines(gram).tolist() == expected
    parallel = torch.tensor([[3.0, 3.0 + 1e-15], [3.0 + 1e-15, 3.0]]).double()
    assert cosines(parallel).max() == 1.0
