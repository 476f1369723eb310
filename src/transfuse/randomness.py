"""Random streams: every use of chance has a generator of its own, derived from the run's seed and a purpose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) from anything JSON can hold: the first bytes of its SHA-256.

    `derive_seed(0, "member", 1)` and `derive_seed(1, "member", 0)` are unrelated, which `seed + index` is not.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def global_stream(generator: torch.Generator, device: torch.device | None = None) -> Iterator[None]:
    """Lets code that draws from torch's global stream (layer initialization, dropout) draw from `generator`.

    The global state before is restored after; `generator` itself is advanced by one draw.

    Args:
        generator: seeds the stream.
        device: the GPU in use, whose stream is lent too; None for the CPU's alone. Other devices are not touched.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        seed_streams(seed, device)
        yield


def seed_streams(seed: int, device: torch.device | None = None) -> None:
    """Seeds torch's global stream on the CPU and, where `device` is a GPU, on that one."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
