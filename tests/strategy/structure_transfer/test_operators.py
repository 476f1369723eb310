from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.models.widths import Slot, WidthGroup, width_groups
from transfuse.strategy.structure_transfer import select_indices, shrink, widen
from transfuse.strategy.structure_transfer.operators import random_map, shares
from transfuse.types import HyperparameterError, Task, UnsupportedStructureError

TASKS = (Task(name="y", kind="classification", outputs=3),)
BUILT = {
    "mlp": partial(build_mlp, widths=[8, 6], activation="gelu"),
    "cnn": partial(build_cnn, channels=[4, 6], features=5),
    "cnn_norm": partial(build_cnn, channels=[4, 6], features=5, batch_norm=True),
    "resnet": partial(build_resnet, channels=[4, 6], blocks=[2, 1]),
    "vit": partial(build_vit, width=8, heads=2, depth=2),
}
WIDER = {
    "mlp": partial(build_mlp, widths=[13, 9], activation="gelu"),
    "cnn": partial(build_cnn, channels=[7, 9], features=8),
    "cnn_norm": partial(build_cnn, channels=[7, 9], features=8, batch_norm=True),
    "resnet": partial(build_resnet, channels=[7, 9], blocks=[2, 1]),
    "vit": partial(build_vit, width=16, heads=4, depth=2),
}


def made(table: dict, name: str, dtype: torch.dtype, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = table[name](input_shape=(1, 8, 8), tasks=TASKS).to(dtype)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(layer.running_mean)
                torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
                torch.nn.init.normal_(layer.bias)
    return network.eval()


def widened(name: str, dtype: torch.dtype, *, equal: bool = False) -> tuple[torch.nn.Module, torch.nn.Module, list]:
    before, after = made(BUILT, name, dtype), made(WIDER, name, dtype, seed=1)
    sizes = {group.name: group.size for group in width_groups(after)}
    state, generator, maps = before.state_dict(), torch.Generator().manual_seed(0), []
    for group in width_groups(before):
        map_N = random_map(group.size, sizes[group.name], generator, whole=group.whole)
        state = widen(state, [group], map_N, shares(map_N, group.size, generator, equal=equal))
        maps.append((group, map_N))
    after.load_state_dict(state)
    return before, after, maps


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", BUILT)
def test_a_widened_network_computes_the_same(name: str, dtype: torch.dtype, tolerance: float, equal: bool) -> None:
    before, after, _ = widened(name, dtype, equal=equal)
    inputs = torch.randn(9, 1, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(after(inputs)["y"], before(inputs)["y"], rtol=0, atol=tolerance)
    if name in ("cnn_norm", "resnet"):  # batch statistics are those of the copied channels
        torch.testing.assert_close(after.train()(inputs)["y"], before.train()(inputs)["y"], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("name", BUILT)
def test_shrinking_a_widened_network_gives_it_back(name: str) -> None:
    before, after, maps = widened(name, torch.float64)
    state = after.state_dict()
    for group, map_N in reversed(maps):
        state = shrink(state, [group], map_N)
    for key, value in before.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=1e-14)


def test_unequal_shares_part_the_copies_and_equal_ones_do_not() -> None:
    for equal in (False, True):
        _, after, maps = widened("mlp", torch.float64, equal=equal)
        inputs = torch.randn(9, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        after(inputs)["y"].square().sum().backward()
        map_N = maps[0][1]
        gradient = after.get_parameter("backbone.stages.0.0.weight").grad
        twin = len(map_N) - 1
        assert torch.allclose(gradient[twin], gradient[map_N[twin]], atol=1e-12) == equal


def slots(*keys: str, dim: int = 0, block: int = 1) -> tuple[Slot, ...]:
    return tuple(Slot(key=key, dim=dim, block=block) for key in keys)


def group_of(size: int, producers: tuple[Slot, ...], consumers: tuple[Slot, ...], normalizers=()) -> WidthGroup:
    return WidthGroup(
        name="g", field="g", index=None, size=size, producers=producers, consumers=consumers, normalizers=normalizers
    )


def compare(tensors: dict[str, torch.Tensor], group: WidthGroup) -> None:
    state = {key[7:]: value for key, value in tensors.items() if key.startswith("source.")}
    found = widen(state, [group], tensors["map"].long(), tensors["split"])
    for key, value in tensors.items():
        if key.startswith("target."):
            torch.testing.assert_close(found[key[7:]], value, rtol=0, atol=1e-10)


def test_golden_linear(golden_transfer: Path) -> None:
    tensors = load_file(golden_transfer / "net2wider_linear.safetensors")
    compare(tensors, group_of(6, slots("0.weight", "0.bias"), slots("2.weight", dim=1)))


def test_golden_convolution(golden_transfer: Path) -> None:
    tensors = load_file(golden_transfer / "net2wider_conv_bn.safetensors")
    block = tensors["source.linear.weight"].shape[1] // 5
    readers = slots("conv2.weight", dim=1) + slots("linear.weight", dim=1, block=block)
    norms = slots("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    compare(tensors, group_of(5, slots("conv.weight", "conv.bias"), readers, norms))


def test_golden_more_heads(golden_transfer: Path) -> None:
    tensors = load_file(golden_transfer / "net2wider_attention.safetensors")
    state = {key: tensors[key] for key in "qkvo"}
    group = group_of(2, slots("q", "k", "v", block=4), slots("o", dim=1, block=4))
    found = widen(state, [group], tensors["head_map"].long(), tensors["head_split"])
    for key in "qkvo":
        torch.testing.assert_close(found[key], tensors[f"more_heads.{key}"], rtol=0, atol=1e-10)


def test_golden_selection(golden_transfer: Path) -> None:
    tensors = load_file(golden_transfer / "weight_selection.safetensors")
    for index in range(5):
        teacher, student = tensors[f"teacher_{index}"], tensors[f"student_{index}"]
        for dim, size in enumerate(student.shape):
            teacher = teacher.index_select(dim, select_indices(teacher.shape[dim], size))
        assert torch.equal(teacher, student)


def test_misfits_are_told() -> None:
    group = group_of(2, slots("w"), slots("v", dim=1))
    state = {"w": torch.ones(2, 2), "v": torch.ones(1, 2)}
    with pytest.raises(HyperparameterError, match="should sum to 1. Found sums from 1 to 2"):
        widen(state, [group], torch.tensor([0, 1, 1]), torch.ones(3))
    with pytest.raises(HyperparameterError, match=r"`n_to` should be in \[1, 3\]. Found `n_to = 4`"):
        select_indices(3, 4)
    with pytest.raises(UnsupportedStructureError, match="Nothing says who writes and reads the widths of Linear"):
        width_groups(torch.nn.Linear(2, 2))
