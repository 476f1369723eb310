from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.alignment.networks import OWN, SHIPPED, Hidden, Ordered, seeded, vectors
from transfuse.alignment import AlignmentError, NothingToAlignError, Specification, specify
from transfuse.types import HyperparameterError

ALL = {**SHIPPED, **OWN}


def specified(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor, Specification]:
    make, inputs = ALL[name]
    network = seeded(make).to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return network, inputs, specify(network, inputs, torch.Generator().manual_seed(1))


def outputs(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = network(inputs)
    return list(found.values()) if isinstance(found, Mapping) else [found]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_any_permutation_leaves_the_function_and_moves_the_weights(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    network, inputs, specification = specified(name, dtype)
    before = outputs(network, inputs)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    permuted = specification.apply(state, specification.random(torch.Generator().manual_seed(2)))
    network.load_state_dict(permuted)
    for one, other in zip(before, outputs(network, inputs), strict=True):
        assert (one - other).abs().max() <= tolerance * one.abs().max()
    for view in specification.views:
        assert not torch.equal(permuted[view.key], state[view.key]), view.key
        assert torch.equal(permuted[view.key].flatten().sort().values, state[view.key].flatten().sort().values)


SYMBOLS = {
    "mlp": {"backbone.stages.0.0.weight@0": 24, "backbone.stages.1.0.weight@0": 16},
    "cnn": {
        "backbone.stages.0.0.weight@0": 6,
        "backbone.stages.1.0.weight@0": 8,
        "backbone.neck.1.weight@0": 64,
    },
    # one symbol a residual stage, one a block's inner width; a projection starts a new stage
    "resnet": {
        "backbone.stem.0.weight@0": 6,
        "backbone.stages.0.0.convolution1.weight@0": 6,
        "backbone.stages.0.1.convolution1.weight@0": 6,
        "backbone.stages.1.0.convolution1.weight@0": 8,
        "backbone.stages.1.0.convolution2.weight@0": 8,
    },
    # the stream; a layer's heads, their query-key and value units, its hidden units
    "vit": {
        "backbone.stem.position_embedding@2": 16,
        **{
            f"backbone.stages.{layer}.{name}": size
            for layer in (0, 1)
            for name, size in {
                "attention.query.weight@0": 4,
                "attention.query.weight@0/within": 4,
                "attention.value.weight@0/within": 4,
                "mlp.0.weight@0": 32,
            }.items()
        },
    },
    "dense": {"first.weight@0": 8, "second.weight@0": 6, "third.weight@0": 10},
    "grouped": {
        "stem.weight@0": 16,
        "point.weight@0": 4,
        "point.weight@0/within": 6,
        "grouped.weight@0/within": 8,
    },
    "unbind": {"stem.weight@0": 16, "qkv.weight@0": 4, "qkv.weight@0/within": 4, "qkv.weight@0/within-2": 4},
    "chunk": {"stem.weight@0": 16, "qkv.weight@0": 4, "qkv.weight@0/within": 4, "qkv.weight@0/within-2": 4},
    "tied": {"embedding.weight@1": 16},  # the rows of `hidden` meet the embedding's width in the head
    "ordered": {"first.weight@0": 12},
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbols(name: str) -> None:
    _, _, specification = specified(name)
    assert {symbol.name: symbol.size for symbol in specification.symbols.values()} == SYMBOLS[name]


def test_rotary_embeddings_hold_what_they_rotate() -> None:
    _, _, specification = specified("rotary")
    assert set(specification.symbols) == {"stem.weight@0", "qkv.weight@0", "qkv.weight@0/within"}
    free = [view for view in specification.views if "qkv.weight@0/within" in view.symbols and view.key == "qkv.weight"]
    assert [view.start[0] for view in free] == [32]  # the values' rows alone
    assert "qkv.weight@0 (getitem in the network)" in specification.fixed


def test_classes_and_inputs_never_move() -> None:
    _, _, specification = specified("mlp")
    moved = {(view.key, dim) for view in specification.views for dim, name in enumerate(view.symbols) if name}
    assert ("heads.digit.linear.weight", 1) in moved
    assert not {("heads.digit.linear.weight", 0), ("heads.digit.linear.bias", 0), ("heads.value.scale", 0)} & moved
    assert ("backbone.stages.0.0.weight", 1) not in moved


def test_running_statistics_move_with_their_channels() -> None:
    _, _, specification = specified("resnet")
    carrying = {view.key for view in specification.views if "backbone.stem.0.weight@0" in view.symbols}
    assert {f"backbone.stem.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")} <= carrying
    assert "backbone.stages.0.1.norm2.running_var" in carrying and "backbone.stages.1.0.shortcut.0.weight" in carrying


def test_unknown_operations_are_listed_with_their_place() -> None:
    specification = specify(seeded(Ordered), vectors(5), torch.Generator())
    assert specification.fixed == (
        "second.weight@0 (cumsum in the network)",
        "second.bias@0 (cumsum in the network)",
        "head.weight@1 (cumsum in the network)",
    )


def test_tied_tensors_stay_tied() -> None:
    network, _, specification = specified("tied")
    assert specification.aliases == {"head.weight": "embedding.weight"}
    permuted = specification.apply(network.state_dict(), specification.random(torch.Generator().manual_seed(0)))
    assert permuted["head.weight"] is permuted["embedding.weight"]


def test_inputs_are_not_written_to() -> None:
    network, _, specification = specified("vit")
    state = network.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    specification.apply(state, specification.random(torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_the_network_keeps_its_mode_and_its_hooks() -> None:
    make, inputs = SHIPPED["vit"]
    network = make().train()
    specify(network, inputs, torch.Generator())
    assert all(module.training and not module._forward_hooks for module in network.modules())


def test_nothing_to_align() -> None:
    with pytest.raises(NothingToAlignError, match=r"no hidden units that can be permuted. Did you mean align=none\?"):
        specify(nn.Linear(4, 3), torch.randn(2, 4), torch.Generator())
    with pytest.raises(NothingToAlignError, match=r"Held: .*0.weight@0 \(held\)"):
        specify(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), torch.randn(2, 4), torch.Generator(), {"*": "fixed"})


def test_units_are_held_by_name() -> None:
    network, inputs, free = specified("vit")
    held = specify(network, inputs, torch.Generator(), {"*.attention.query.weight@0": "fixed"})
    gone = {f"backbone.stages.{layer}.attention.{name}" for layer in (0, 1) for name in _ATTENTION}
    assert set(free.symbols) - set(held.symbols) == gone  # heads, and what is within them
    assert "backbone.stages.0.attention.query.weight@0 (held)" in held.fixed


_ATTENTION = ("query.weight@0", "query.weight@0/within", "value.weight@0/within")


def test_patterns_that_match_nothing_are_refused() -> None:
    network, inputs, _ = specified("mlp")
    with pytest.raises(HyperparameterError, match=re.escape("Found `spec = backbone.stages.0.0.weight`, which")):
        specify(network, inputs, torch.Generator(), {"backbone.stages.0.0.weight": "fixed"})
    with pytest.raises(HyperparameterError, match=r"names of symbols to fixed. Found `spec.\* = free`"):
        specify(network, inputs, torch.Generator(), {"*": "free"})


def test_what_cannot_be_seen_is_found_by_the_trial() -> None:
    with pytest.raises(AlignmentError, match=r"Permuting first.weight@0 changes the network's outputs"):
        specify(seeded(Hidden), vectors(5), torch.Generator().manual_seed(0))
