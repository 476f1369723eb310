from __future__ import annotations

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion.geometry import geometry


def states(count: int) -> list[dict[str, torch.Tensor]]:
    stream = torch.Generator().manual_seed(3)

    def state() -> dict[str, torch.Tensor]:
        shared = torch.randn(4, generator=stream)
        return {
            "a": torch.randn(70_000, generator=stream),
            "b": torch.randn(3, 2, generator=stream).T,
            "empty": torch.zeros(0),
            "tied": shared,
            "tied_again": shared,
            "norm.running_mean": torch.randn(2, generator=stream),
            "norm.running_var": torch.rand(2, generator=stream),
            "norm.num_batches_tracked": torch.tensor(4),
        }

    return [state() for _ in range(count)]


@pytest.mark.parametrize("with_base", [False, True])
def test_against_numpy(with_base: bool) -> None:
    members, base = states(3), states(4)[-1]
    total, *tensors = geometry(members, base if with_base else None)
    assert [tensor.name for tensor in tensors] == ["a", "b", "empty", "tied"]
    flat = []
    for tensor in tensors:
        vectors = np.stack([state[tensor.name].double().numpy().reshape(-1) for state in members])
        if with_base:
            vectors = vectors - base[tensor.name].double().numpy().reshape(-1)
            assert tensor.base_norm == pytest.approx(base[tensor.name].double().norm().item(), rel=1e-12)
        flat.append(vectors)
        np.testing.assert_allclose(tensor.norms_K, np.linalg.norm(vectors, axis=1), rtol=1e-12)
        signs = np.sign(vectors)
        opposite = (signs.max(0, initial=-1) > 0) & (signs.min(0, initial=1) < 0) if vectors.size else np.zeros(0, bool)
        assert (tensor.conflicts, tensor.shared) == (opposite.sum(), ((signs != 0).sum(0) > 1).sum())
    whole = np.concatenate(flat, axis=1)
    np.testing.assert_allclose(total.gram_KK, whole @ whole.T, rtol=1e-10)
    cosines = (whole @ whole.T) / np.outer(*[np.linalg.norm(whole, axis=1)] * 2)
    np.testing.assert_allclose(total.cosines_KK, cosines, rtol=1e-10)
    assert total.mean_cosine == pytest.approx(cosines[np.triu_indices(3, 1)].mean(), rel=1e-10)
    assert total.elements == 70_000 + 6 + 4


def test_equal_models_have_no_task_vectors_and_no_conflict() -> None:
    member = states(1)[0]
    total = geometry([member, member], member)[0]
    assert total.norms_K.tolist() == [0, 0] and total.sign_conflict is None and total.mean_cosine == 0


def test_one_model_has_no_pairs() -> None:
    assert geometry(states(1))[0].mean_cosine is None


def test_a_row_can_be_written_as_json() -> None:
    import json

    row = geometry([{"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([1.0, 2.0])}])[1].row()
    assert json.loads(json.dumps(row)) == row
    assert row["sign_conflict"] == 0.5 and row["elements"] == 2
