"""What one prediction of a network costs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_LONGEST_SECONDS = 0.2


def inference_cost(network: nn.Module, inputs: Tensor, *, repeats: int) -> dict[str, float]:
    """All costs of a network in evaluation mode: `parameters, flops_per_example, latency_ms, peak_memory_mb`.

    Args:
        network: maps inputs (N, ...) to anything.
        inputs: (N, ...) examples to run; the latency is that of the first one.
        repeats: timed forward passes at most.
    """
    inputs = inputs.to(_device(network))
    return {
        "parameters": float(num_parameters(network)),
        "flops_per_example": flops_per_example(network, inputs),
        "latency_ms": latency_ms(network, inputs[:1], repeats=repeats),
        "peak_memory_mb": peak_memory_mb(_device(network)),
    }


def mean_cost(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each cost over networks: what one of them costs on average."""
    return {name: statistics.fmean(cost[name] for cost in costs) for name in costs[0]}


def num_parameters(network: nn.Module) -> int:
    """Number of weights; tied ones count once, buffers do not count.

    >>> num_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def flops_per_example(network: nn.Module, inputs: Tensor) -> float:
    """Floating-point operations of a forward pass, a multiplication and an addition being two.

    Matrix products, convolutions and attention count; element-wise operations (activations, norms, biases) do not, and
    neither do torch's recurrent layers, which are one operation on the CPU.

    >>> flops_per_example(nn.Linear(3, 2), torch.zeros(4, 3))
    12.0
    """
    counter = _FlopCounter()
    with _without_fused_layers(), counter:
        network(inputs)
    return counter.flops / len(inputs)


@torch.inference_mode()
def latency_ms(network: nn.Module, inputs: Tensor, *, repeats: int) -> float:
    """Median time of a forward pass of `inputs` in milliseconds, with the process's threads.

    Of `repeats` passes after a first one that is not timed; of fewer, where they would take more than 0.2 s.
    """
    network(inputs)
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < _LONGEST_SECONDS:
        _wait(inputs.device)
        started = time.perf_counter()
        network(inputs)
        _wait(inputs.device)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far, in MiB: on CUDA what tensors of this process took on the device, else its resident memory.

    The peak is the process's, training included: it compares runs, each of which is a process of its own.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up the formulas of `torch.utils.flop_counter`.

    Its own `FlopCounterMode` loads the compiler (more than a second of CPU time), which nothing here needs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def _device(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    """Attention and transformer layers run as matrix products, which are counted, and not as one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
