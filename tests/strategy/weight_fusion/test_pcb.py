from __future__ import annotations

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion import PCBMerging, merge
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.types import HyperparameterError

State = dict[str, torch.Tensor]


def states(count: int, seed: int = 0, size: int = 300) -> list[State]:
    stream = torch.Generator().manual_seed(seed)
    return [
        {
            "a": torch.randn(size, generator=stream, dtype=torch.float64),
            "b": 3 * torch.randn(4, 5, generator=stream, dtype=torch.float64),
            "c": torch.randn((), generator=stream, dtype=torch.float64),
        }
        for _ in range(count)
    ]


def flat(state: State) -> np.ndarray:
    return torch.cat([value.reshape(-1) for value in state.values()]).numpy()


def reference(models: list[State], base: State, ratio: float, trim: float, scale: float) -> np.ndarray:
    """The formula by sorting the flat vectors."""
    deltas = np.stack([flat(model) - flat(base) for model in models])
    num_models, size = deltas.shape
    ordered = np.sort(np.abs(deltas), axis=1)
    cut = int(trim * size)
    low, high = ordered[:, [cut]], ordered[:, [size - 1 - cut]]
    magnitudes = np.clip(np.abs(deltas), low, high)
    scores = np.exp(num_models * ((magnitudes - low) / (high - low)) ** 2) * np.tanh(deltas * deltas.sum(0))
    kept = max(1, int(ratio * size))
    ranked = np.sort(scores, axis=1)
    threshold, top = ranked[:, [size - kept]], ranked[:, [-1]]
    shares = np.clip((scores - threshold) / (top - threshold), 0, 1) if kept > 1 else (scores >= top) * 1.0
    total = shares.sum(0)
    merged = (shares * np.sign(deltas) * magnitudes).sum(0) / np.where(total == 0, 1, total)
    return flat(base) + scale * merged


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("trim", [0.0, 1e-4, 0.02, 0.05])
def test_the_formula_over_the_flat_vector(ratio: float, trim: float) -> None:
    *models, base = states(4)
    merged = merge(models, method="pcb", base=base, ratio=ratio, trim=trim, scale=0.7)
    np.testing.assert_allclose(flat(merged), reference(models, base, ratio, trim, 0.7), rtol=1e-12, atol=1e-12)


def test_the_selection_of_many_elements_is_exact() -> None:
    *models, base = states(3, size=120_000)
    merged = merge(models, method="pcb", base=base, ratio=0.05, trim=1e-3)
    np.testing.assert_allclose(flat(merged), reference(models, base, 0.05, 1e-3, 1.0), rtol=1e-10, atol=1e-12)


def test_only_a_share_of_the_elements_moves() -> None:
    *models, base = states(4)
    moved = flat(PCBMerging(ratio=0.1).merged(models, base)) != flat(base)
    assert 32 <= moved.sum() <= 3 * 32  # each of three models keeps 32 of 321, the last of them with the share 0


def test_shifts_limits_and_equal_models() -> None:
    *models, base = states(4)
    method = PCBMerging(ratio=0.2)
    shifted = method.merged([{k: v + 2 for k, v in m.items()} for m in models], {k: v + 2 for k, v in base.items()})
    np.testing.assert_allclose(flat(shifted), flat(method.merged(models, base)) + 2, rtol=0, atol=1e-9)
    assert np.array_equal(flat(method.merged([base] * 3, base)), flat(base))
    assert np.array_equal(flat(PCBMerging(scale=0.0).merged(models, base)), flat(base))
    alone = flat(PCBMerging(ratio=1.0, trim=0.0).merged([models[0]] * 3, base))
    lowest = np.abs(flat(models[0]) - flat(base)).argmin()  # its score is the smallest: it does not take part
    expected = np.where(np.arange(alone.size) == lowest, flat(base), flat(models[0]))
    np.testing.assert_allclose(alone, expected, rtol=1e-9, atol=1e-9)


def test_tensors_of_several_types_compete() -> None:
    *models, base = ({"a": s["a"], "b": s["b"].float(), "c": s["c"].bfloat16()} for s in states(4))
    merged = PCBMerging(ratio=0.3).merged(models, base)
    found = flat({key: value.double() for key, value in merged.items()})
    plain = [{key: value.double() for key, value in state.items()} for state in (*models, base)]
    expected = reference(plain[:-1], plain[-1], 0.3, 1e-4, 1.0)
    assert [value.dtype for value in merged.values()] == [torch.float64, torch.float32, torch.bfloat16]
    np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-5, atol=1e-5)


def test_blocks_change_nothing() -> None:
    *models, base = states(3, size=5000)
    names = ["a", "b"]
    whole = merge_state_dicts(PCBMerging(), models, names=names, base=base)
    cut = merge_state_dicts(PCBMerging(), models, names=names, base=base, size=7)
    np.testing.assert_array_equal(flat(whole), flat(cut))


def test_nothing_to_fuse_and_single_elements() -> None:
    empty = {"w": torch.zeros(0)}
    assert PCBMerging().merged([empty, empty], empty)["w"].shape == (0,)
    one = PCBMerging().merged([{"w": torch.tensor([3.0])}, {"w": torch.tensor([5.0])}], {"w": torch.tensor([1.0])})
    assert one["w"].item() == 4.0


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("ratio", 0.0, "(0, 1]"), ("ratio", 1.5, "(0, 1]"), ("trim", 0.5, "[0, 0.5)"), ("trim", -0.1, "[0, 0.5)")],
)
def test_values_out_of_range_are_refused(field: str, value: float, allowed: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        PCBMerging(**{field: value})
    assert str(caught.value) == f"`{field}` should be in {allowed}. Found `{field} = {value}`."
