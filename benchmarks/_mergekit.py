"""CPU seconds of mergekit's in-memory merges: `python _mergekit.py inputs.safetensors`, run by mergekit's own Python.

Reads tensors `base`, `0`, `1`, `2`; prints method -> least CPU seconds of several rounds as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import load_file

ROUNDS = 5
WEIGHTS = [1 / 3] * 3
CALLS = {
    "linear": ("linear", False, {"weight": WEIGHTS}),
    "task_arithmetic": ("task_arithmetic", True, {"weight": WEIGHTS}),
    "ties": ("ties", True, {"weight": WEIGHTS, "density": [0.5] * 3}),
    "dare_linear": ("dare_linear", True, {"weight": WEIGHTS, "density": [0.5] * 3}),
    "dare_ties": ("dare_ties", True, {"weight": WEIGHTS, "density": [0.5] * 3}),
    "breadcrumbs": ("breadcrumbs", True, {"weight": WEIGHTS, "density": [0.5] * 3, "gamma": [0.01] * 3}),
    "breadcrumbs_ties": ("breadcrumbs_ties", True, {"weight": WEIGHTS, "density": [0.5] * 3, "gamma": [0.01] * 3}),
    "della": ("della", True, {"weight": WEIGHTS, "density": [0.5] * 3, "epsilon": [0.15] * 3}),
    "della_linear": ("della_linear", True, {"weight": WEIGHTS, "density": [0.5] * 3, "epsilon": [0.15] * 3}),
    "sce": ("sce", True, {"select_topk": 0.5}),
    "karcher": ("karcher", False, {}),
    "multislerp": ("multislerp", False, {"weight": WEIGHTS}),
    "slerp": ("slerp", False, {"t": 0.3}),
    "nuslerp": ("nuslerp", False, {"weight": [0.7, 0.3]}),
    "model_stock": ("model_stock", True, {}),
}


def seconds(tensors: dict[str, torch.Tensor], name: str) -> float:
    """Least CPU seconds of one merge."""
    method, with_base, parameters = CALLS[name]
    models = [tensors["0"], tensors["1"], tensors["2"]][: 2 if "slerp" in name and name != "multislerp" else 3]
    inputs = [tensors["base"], *models] if with_base else models
    found = []
    for _ in range(ROUNDS):
        before = time.process_time()
        merge_tensors(inputs, method, parameters=parameters, base_index=0 if with_base or name == "slerp" else None)
        found.append(time.process_time() - before)
    return min(found)


def main(path: str) -> None:
    """Prints all methods that run."""
    torch.set_num_threads(1)
    tensors, found = load_file(path), {}
    with torch.no_grad():
        for name in CALLS:
            try:
                found[name] = seconds(tensors, name)
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    print(json.dumps(found))


main(sys.argv[1])
