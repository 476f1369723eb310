"""Weight fusion in memory against mergekit, and against floors of one machine: `python benchmarks/weight_fusion.py`.

mergekit (0.1.5) runs in its own environment: `MERGEKIT_PYTHON=/path/to/its/python`. Without it the ratios are to the
mean of three tensors in float32 by plain PyTorch, for information, and the limits that need mergekit are not printed.
One thread, CPU time, the least of several rounds: one 1024 x 2816 tensor of three models and a base, in bfloat16 and
float32, then the memory of a state dict of 101 million parameters.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from transfuse.strategy.weight_fusion import merge
from transfuse.strategy.weight_fusion.block import Blocks
from transfuse.strategy.weight_fusion.trimming import largest
from transfuse.tracking.record import versions

SHAPE = (1024, 2816)
ROUNDS = 7
LAYERS = 35  # of SHAPE: 101 million parameters
THIRDS = [1 / 3] * 3

# method -> models, fields, and the largest ratio to mergekit
METHODS: dict[str, tuple[int, dict[str, object], float]] = {
    "linear": (3, {"weights": THIRDS}, 0.8),
    "task_arithmetic": (3, {"weights": THIRDS}, 0.8),
    "ties": (3, {"weights": THIRDS, "density": 0.5}, 1 / 6),
    "dare_linear": (3, {"weights": THIRDS, "density": 0.5}, 1 / 3),
    "dare_ties": (3, {"weights": THIRDS, "density": 0.5}, 1 / 3),
    "breadcrumbs": (3, {"weights": THIRDS, "density": 0.5, "scale": 1.0}, 1 / 5),
    "breadcrumbs_ties": (3, {"weights": THIRDS, "density": 0.5, "scale": 1.0}, 1 / 5),
    "della": (3, {"weights": THIRDS}, 1 / 3),
    "della_linear": (3, {"weights": THIRDS}, 1 / 3),
    "sce": (3, {"select": 0.5}, 1 / 6),
    "karcher": (3, {}, 1 / 12),
    "multislerp": (3, {"weights": THIRDS}, 1 / 3),
    "slerp": (2, {"t": 0.3}, 1.0),
    "nuslerp": (2, {"weights": [0.7, 0.3]}, 1.0),
    "model_stock": (3, {}, 1.0),
}
WITH_BASE = {"task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della",
             "della_linear", "sce", "model_stock"}  # fmt: skip


def tensors_of(dtype: torch.dtype) -> dict[str, Tensor]:
    """A base and three models near it."""
    generator = torch.Generator().manual_seed(0)
    base = 0.02 * torch.randn(SHAPE, generator=generator)
    models = {str(index): base + 0.002 * torch.randn(SHAPE, generator=generator) for index in range(3)}
    return {name: tensor.to(dtype) for name, tensor in {"base": base, **models}.items()}


def least_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of the quickest of several rounds, after one that is not counted."""
    run()
    found = []
    for _ in range(ROUNDS):
        before = time.process_time()
        run()
        found.append(time.process_time() - before)
    return min(found)


def ours(tensors: dict[str, Tensor], method: str) -> float:
    """CPU seconds of `transfuse.merge` on one tensor."""
    count, fields, _ = METHODS[method]
    models = [{"w": tensors[str(index)]} for index in range(count)]
    base = {"w": tensors["base"]} if method in WITH_BASE else None
    return least_seconds(lambda: merge(models, method=method, base=base, **fields))


def theirs(tensors: dict[str, Tensor]) -> dict[str, float]:
    """Method -> CPU seconds of mergekit, where it is installed."""
    python = os.environ.get("MERGEKIT_PYTHON")
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "inputs.safetensors")
        script = Path(__file__).with_name("_mergekit.py")
        command = [python, str(script), str(Path(folder) / "inputs.safetensors")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def floors(tensors: dict[str, Tensor]) -> dict[str, float]:
    """CPU seconds of what no merge can avoid, by plain PyTorch and NumPy."""
    models = [tensors[str(index)] for index in range(3)]
    deltas = (models[0].float() - tensors["base"].float()).abs().flatten().numpy()
    kept = deltas.size // 2
    return {
        "mean_of_three": least_seconds(lambda: torch.stack([model.float() for model in models]).mean(0)),
        "partition": least_seconds(lambda: np.partition(deltas, deltas.size - kept)),
    }


def threshold(tensors: dict[str, Tensor]) -> float:
    """CPU seconds of the exact cut of one task vector, the subtraction included."""
    blocks = Blocks(key="w", values_K=(tensors["0"],), base=tensors["base"], dtype=torch.float32)
    kept = tensors["0"].numel() // 2
    return least_seconds(lambda: largest([blocks], [[kept]]))


def peak(method: str) -> float:
    """Memory beyond inputs and output while a state dict of 101 million parameters is merged, in tensors of it.

    Runs in a process of its own, since the highest resident size never falls.
    """
    command = [sys.executable, __file__, "peak", method]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measured_peak(method: str) -> float:
    """See `peak`."""
    tensors = tensors_of(torch.float32)
    count, fields, _ = METHODS[method]
    names = [f"layers.{layer}.w" for layer in range(LAYERS)]
    models = [{name: tensors[str(index)].clone() for name in names} for index in range(count)]
    base = {name: tensors["base"].clone() for name in names} if method in WITH_BASE else None
    merge([{"w": torch.ones(9)}] * count, method=method, base={"w": torch.zeros(9)} if base else None, **fields)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    merged = merge(models, method=method, base=base, **fields)
    size = next(iter(merged.values())).nbytes
    used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return max(0.0, (used - LAYERS * size) / size)  # the output may take memory that was freed before


def main() -> None:
    """Prints the tables, then ratios and limits."""
    torch.set_num_threads(1)
    print(f"{versions()}, {torch.get_num_threads()} thread, least of {ROUNDS} rounds, ns of CPU time a parameter")
    lines = []
    for dtype in (torch.bfloat16, torch.float32):
        tensors, kind = tensors_of(dtype), str(dtype).removeprefix("torch.")
        floor, peer = floors(tensors), theirs(tensors)
        cut = threshold(tensors)
        per = 1e9 / tensors["base"].numel()
        print(f"{kind:18s} mean of three {per * floor['mean_of_three']:.2f}, partition {per * floor['partition']:.2f}")
        for method, (_, _, bound) in METHODS.items():
            spent = ours(tensors, method)
            beside = f" mergekit {per * peer[method]:8.2f}" if method in peer else ""
            print(f"{kind:9s} {method:18s} {per * spent:8.2f}{beside}")
            name = f"{method}_{kind}"
            if method in peer:
                lines += [f"ratio {name} {spent / peer[method]:.3f}", f"limit {name} {bound:.3f}"]
            else:
                lines.append(f"ratio {name}_to_mean_of_three {spent / floor['mean_of_three']:.3f}")
        lines += [f"ratio threshold_{kind} {cut / floor['partition']:.3f}", f"limit threshold_{kind} 0.4"]
    for method in ("linear", "task_arithmetic", "ties", "dare_linear", "karcher", "model_stock"):
        lines += [f"ratio peak_{method} {peak(method):.2f}", f"limit peak_{method} 2.0"]
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print(measured_peak(sys.argv[2]))
    else:
        main()
