"""Golden inputs of methods with a base: micro language models, and a small network in float32 and float64."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]


def checkpoints(golden: Path, dtype: torch.dtype = torch.float32) -> tuple[list[State], State]:
    """Three fine-tuned models, and the base."""
    models = [load_file(golden / f"checkpoint_{name}.safetensors") for name in ("ft1", "ft2", "ft3", "base")]
    models = [{key: value.to(dtype) for key, value in model.items()} for model in models]
    return models[:3], models[3]


def networks(golden: Path, tag: str) -> tuple[list[State], State]:
    """Three tasks' networks and the base, keys sorted."""
    inputs = load_file(golden / f"task_vectors_{tag}.safetensors")
    names = ("task1", "task2", "task3", "base")
    found = [
        {key.removeprefix(f"{name}/"): inputs[key] for key in sorted(inputs) if key.startswith(f"{name}/")}
        for name in names
    ]
    return found[:3], found[3]


def assert_golden(merged: State, path: Path, atol: float) -> None:
    expected = load_file(path)
    assert merged.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            merged[key], value, rtol=0, atol=atol, msg=lambda message, key=key: f"{key}: {message}"
        )


def random_models(count: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[list[State], State]:
    """Models of one random tensor and a random base."""
    stream = torch.Generator().manual_seed(size)
    base = torch.randn(size, generator=stream, dtype=torch.float64)
    models = [base + 0.1 * torch.randn(size, generator=stream, dtype=torch.float64) for _ in range(count)]
    return [{"w": model.to(dtype)} for model in models], {"w": base.to(dtype)}
