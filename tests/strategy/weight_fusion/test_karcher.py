from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize

from tests.strategy.weight_fusion.task_vector_inputs import checkpoints
from transfuse.strategy.weight_fusion import KarcherMean, merge
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(("name", "fields"), [("karcher", {"max_iter": 10, "tol": 1e-5}), ("karcher_iter50", {})])
def test_golden(golden: Path, name: str, fields: dict[str, float]) -> None:
    exact = merge(checkpoints(golden, torch.float64)[0], method="karcher", **fields)
    merged = merge(checkpoints(golden)[0], method="karcher", **fields)
    for key, value in load_file(golden / f"checkpoint_{name}.safetensors").items():
        torch.testing.assert_close(exact[key], value.double(), rtol=0, atol=2e-7)
        rounded = exact[key].float()
        torch.testing.assert_close(merged[key], rounded, rtol=2**-23, atol=2**-28)  # at most a unit off


def test_minimizes_the_squared_angles() -> None:
    stream = np.random.default_rng(0)
    points = stream.normal(size=(3, 5)) + 1.0
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.array([0.5, 0.3, 0.2])

    def spread(point: np.ndarray) -> float:
        cosines = units @ (point / np.linalg.norm(point))
        return float(weights @ np.arccos(np.clip(cosines, -1, 1)) ** 2)

    best = minimize(spread, units.mean(0), tol=1e-14).x
    expected = best / np.linalg.norm(best) * (weights @ np.linalg.norm(points, axis=1))
    merged = merge([{"w": torch.from_numpy(point)} for point in points], method="karcher", weights=weights.tolist())
    np.testing.assert_allclose(merged["w"], expected, atol=1e-6)


def test_two_models_are_half_way_on_the_circle() -> None:
    stream = torch.Generator().manual_seed(2)
    states = [{"w": torch.randn(30, generator=stream, dtype=torch.float64)} for _ in range(2)]
    norms = [state["w"].norm() for state in states]
    units = [{"w": state["w"] / norm} for state, norm in zip(states, norms, strict=True)]
    expected = merge(units, method="slerp", t=0.5)["w"] * (norms[0] + norms[1]) / 2
    torch.testing.assert_close(merge(states, method="karcher")["w"], expected, rtol=1e-9, atol=1e-12)


def test_bad_input() -> None:
    for fields, message in (({"max_iter": 0}, "`max_iter` should be >= 1"), ({"tol": 0.0}, "`tol` should be > 0")):
        with pytest.raises(HyperparameterError, match=message):
            KarcherMean(**fields)
