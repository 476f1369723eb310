"""Streams of chance: derived seeds, and torch's global stream lent for a while."""

from __future__ import annotations

import pytest
import torch

from transfuse.randomness import derive_seed, global_stream, make_generator, seed_streams


def test_seeds_depend_on_every_part_and_on_their_order() -> None:
    seeds = {derive_seed(*parts) for parts in [(0, "member", 1), (1, "member", 0), (0, "member"), ("member", 0, 1)]}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "member", 1) == derive_seed(0, "member", 1)


def test_the_global_stream_follows_the_generator_and_is_given_back() -> None:
    before = torch.get_rng_state()
    drawn = []
    for name in ("a", "a", "b"):
        with global_stream(make_generator(name)):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


class Gpus:
    """What the global stream asks of GPUs, noted instead of done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.touched: list[tuple[str, object]] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: self.touched.append(("get", device)))
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: self.touched.append(("set", device)))
        monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: self.touched.append(("seed", seed)))
        monkeypatch.setattr(torch.cuda, "device", Chosen)


class Chosen:
    def __init__(self, device: torch.device) -> None:
        assert device == torch.device("cuda", 1)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_no_gpu_is_touched_for_work_on_the_cpu(monkeypatch: pytest.MonkeyPatch, device: torch.device | None) -> None:
    gpus = Gpus(monkeypatch, count=8)
    with global_stream(make_generator("cpu"), device):  # and torch does not warn of many devices
        torch.rand(1)
    assert gpus.touched == []


def test_of_several_gpus_the_one_in_use_is_seeded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, device = Gpus(monkeypatch, count=8), torch.device("cuda", 1)
    with global_stream(make_generator("gpu"), device):
        (got, seeded) = gpus.touched
    assert got == ("get", device) and seeded[0] == "seed"
    assert gpus.touched[2:] == [("set", device)]


def test_a_seed_decides_what_is_drawn() -> None:
    with global_stream(make_generator("outer")):
        seed_streams(5)
        drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))
