from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, random_models
from transfuse.strategy.weight_fusion import SCE, merge
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(("name", "select"), [("sce", 1.0), ("sce_top50", 0.5)])
def test_golden(golden: Path, name: str, select: float) -> None:
    models, base = checkpoints(golden)
    merged = merge(models, method="sce", base=base, select=select)
    assert_golden(merged, golden / f"checkpoint_{name}.safetensors", atol=2e-7)


def by_hand(deltas_KN: np.ndarray, select: float) -> np.ndarray:
    variance_N = deltas_KN.var(0)
    varying = np.count_nonzero(variance_N)
    if select < 1:
        kept = np.zeros(variance_N.size, dtype=bool)
        kept[np.argsort(-variance_N, kind="stable")[: max(min(1, varying), int(select * varying))]] = True
        deltas_KN = deltas_KN * kept
    weights_K1 = np.square(deltas_KN).mean(1, keepdims=True)
    agree_KN = np.sign(deltas_KN) == np.where(deltas_KN.sum(0) >= 0, 1, -1)
    shares_N = (weights_K1 * agree_KN).sum(0)
    return (weights_K1 * agree_KN * deltas_KN).sum(0) / np.where(shares_N > 0, shares_N, 1.0)


@pytest.mark.parametrize("select", [0.01, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 2, 7, 99, 100, 101, 70_001])
def test_equals_the_definition(select: float, size: int) -> None:
    models, base = random_models(3, size)
    for model in models:
        model["w"][::3] = base["w"][::3]  # these do not vary, and do not count
    deltas_KN = np.stack([(model["w"] - base["w"]).numpy() for model in models])
    found = SCE(select=select).merged(models, base)["w"]
    np.testing.assert_allclose((found - base["w"]).numpy(), by_hand(deltas_KN, select), rtol=1e-9, atol=1e-13)


def test_scale_does_not_change_weights() -> None:
    # tiny task vectors are weighed as large ones are
    models, base = random_models(3, 200)
    base["w"].zero_()
    tiny = [{"w": model["w"] * 2.0**-40} for model in models]
    merged, small = SCE().merged(models, base)["w"], SCE().merged(tiny, base)["w"]
    torch.testing.assert_close(small * 2.0**40, merged, rtol=1e-12, atol=0)


def test_equal_models() -> None:
    (model,), base = random_models(1, 50)
    for select in (0.5, 1.0):
        assert torch.equal(SCE(select=select).merged([base] * 3, base)["w"], base["w"])
    torch.testing.assert_close(SCE().merged([model] * 3, base)["w"], model["w"], rtol=1e-12, atol=1e-14)
    # nothing varies, so nothing is selected
    assert torch.equal(SCE(select=0.5).merged([model] * 4, base)["w"], base["w"])


@pytest.mark.parametrize("size", [1, 7, 500])
def test_blocks_change_no_bit(size: int) -> None:
    models, base = random_models(3, 900, torch.float32)
    names = ["a", "b", "c"]
    whole = merge_state_dicts(SCE(select=0.5), models, names=names, base=base)
    assert torch.equal(whole["w"], merge_state_dicts(SCE(select=0.5), models, names=names, base=base, size=size)["w"])


@pytest.mark.parametrize("select", [0.0, -1.0, 1.5, float("nan")])
def test_bad_shares_are_refused(select: float) -> None:
    with pytest.raises(HyperparameterError, match=rf"`select` should be in \(0, 1\]. Found `select = {select}`."):
        SCE(select=select)
