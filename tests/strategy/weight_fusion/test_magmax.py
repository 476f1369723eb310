from __future__ import annotations

from pathlib import Path

import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, networks, random_models
from transfuse.strategy.weight_fusion import MagMax, merge
from transfuse.strategy.weight_fusion.magmax import largest_magnitude


def test_golden(golden: Path) -> None:
    models, base = networks(golden, "f64")
    assert_golden(merge(models, method="magmax", base=base), golden / "magmax_f64.safetensors", atol=1e-12)


def test_of_equal_magnitudes_the_later_model_wins() -> None:
    deltas_KB = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 2.0, 0.0], [0.5, -2.0, -0.1]])
    assert torch.equal(largest_magnitude(deltas_KB), torch.tensor([-1.0, -2.0, -0.1]))
    assert torch.equal(largest_magnitude(deltas_KB[[1, 0]]), torch.tensor([1.0, -2.0, 0.0]))


def test_limits() -> None:
    models, base = random_models(3, 501)
    assert torch.equal(MagMax(scale=0.0).merged(models, base)["w"], base["w"])
    assert torch.equal(MagMax().merged([base] * 3, base)["w"], base["w"])
    halfway = MagMax().merged(models[:1], base)["w"]
    torch.testing.assert_close(halfway, (models[0]["w"] + base["w"]) / 2, rtol=1e-12, atol=1e-14)
    merged = MagMax(scale=1.0).merged(models, base)["w"]
    assert bool(torch.stack([(merged - model["w"]).abs() < 1e-12 for model in models]).any(0).all())
