"""`transfuse.load`: every tensor is accounted for; `load_strict`: all or nothing."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import transfuse
from transfuse.models import LoadReport, Network, build_cnn, build_mlp, build_resnet, build_vit, load, load_strict
from transfuse.models.adaptation import adapt_input_channels, resample_position_embedding
from transfuse.models.loading import reset_parameters
from transfuse.randomness import global_stream, make_generator
from transfuse.types import (
    CoverageError,
    HyperparameterError,
    KeyMapError,
    NonFiniteError,
    StateDictError,
    StateDictMismatch,
    Task,
)

TEN = (Task(name="digit", kind="classification", outputs=10),)
FIVE = (Task(name="digit", kind="classification", outputs=5),)
BUILDERS = {"mlp": build_mlp, "cnn": build_cnn, "resnet": build_resnet, "vit": build_vit}


def make(model: str, seed: int, tasks: tuple[Task, ...] = TEN, shape: tuple[int, ...] = (1, 8, 8), **sizes) -> Network:
    with global_stream(make_generator("weights", seed)):
        return BUILDERS[model](input_shape=shape, tasks=tasks, **sizes)


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def assert_accounts_for(report: LoadReport, source: dict[str, Tensor], network: nn.Module) -> None:
    pairs = [*report.matched, *report.adapted, *report.dropped]
    sources = [pair.source for pair in pairs if pair.how != "tied"] + list(report.unexpected)
    assert sorted(sources) == sorted(source)
    assert sorted([pair.target for pair in pairs] + list(report.missing)) == sorted(network.state_dict())


@pytest.mark.parametrize("model", BUILDERS)
def test_a_network_loads_into_its_likes_whole(model: str) -> None:
    source, target = make(model, 0), make(model, 1)
    report = load(source.state_dict(), target)
    assert report.coverage == 1.0
    assert {pair.how for pair in report.matched} == {"equal"}
    assert (report.adapted, report.dropped, dict(report.missing), dict(report.unexpected)) == ((), (), {}, {})
    assert equal(target.state_dict(), source.state_dict())
    assert {v.data_ptr() for v in target.state_dict().values()}.isdisjoint(
        v.data_ptr() for v in source.state_dict().values()
    )
    assert_accounts_for(report, source.state_dict(), target)


@pytest.mark.parametrize("reset", [False, True])
def test_loading_itself_changes_nothing(reset: bool) -> None:
    network = make("resnet", 0)
    before = copy_of(network)
    report = load(network.state_dict(), network, reset=reset)
    assert report.coverage == 1.0
    assert equal(network.state_dict(), before)


@pytest.mark.parametrize("model", BUILDERS)
def test_a_head_of_another_size_is_dropped_whole(model: str) -> None:
    source, target = make(model, 0, FIVE), make(model, 1)
    before = copy_of(target)
    report = load(source.state_dict(), target)
    assert report.coverage == 1.0
    assert [(pair.target, pair.how) for pair in report.dropped] == [
        (f"heads.digit.linear.{part}", report.dropped[0].how) for part in ("weight", "bias")
    ]
    features = target.backbone.features
    assert report.dropped[0].how == (
        f"another head: shape (5, {features}) in the source, (10, {features}) in the network"
    )
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key] if key.startswith("heads.") else source.state_dict()[key])
    assert_accounts_for(report, source.state_dict(), target)


def test_a_head_of_another_kind_is_dropped_whole() -> None:
    regression = (Task(name="digit", kind="regression", outputs=10),)
    for source_tasks, target_tasks, reason in [
        (TEN, regression, "the source's head has no `location`"),
        (regression, TEN, "the network's head has no `location`"),
    ]:
        source, target = make("mlp", 0, source_tasks), make("mlp", 1, target_tasks)
        before = copy_of(target)
        report = load(source.state_dict(), target)
        assert {pair.target: pair.how for pair in report.dropped} == {
            "heads.digit.linear.weight": reason,
            "heads.digit.linear.bias": reason,
        }
        assert torch.equal(target.heads["digit"].linear.weight, before["heads.digit.linear.weight"])
        assert_accounts_for(report, source.state_dict(), target)


def test_a_head_of_another_task_is_missing_and_unexpected() -> None:
    source, target = make("mlp", 0, (Task(name="letter", kind="classification", outputs=10),)), make("mlp", 1)
    report = load(source.state_dict(), target)
    assert dict(report.missing) == {"heads.digit.linear.weight": 1280, "heads.digit.linear.bias": 10}
    assert dict(report.unexpected) == {"heads.letter.linear.bias": 10, "heads.letter.linear.weight": 1280}
    assert report.coverage == 1.0


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 4)])
def test_the_first_convolution_takes_other_input_channels(before: int, after: int) -> None:
    source, target = make("cnn", 0, shape=(before, 8, 8)), make("cnn", 1, shape=(after, 8, 8))
    report = load(source.state_dict(), target)
    weight = "backbone.stages.0.0.weight"
    assert [(pair.target, pair.how, pair.elements) for pair in report.adapted] == [
        (weight, "input_channels", 16 * after * 9)
    ]
    assert torch.equal(target.state_dict()[weight], adapt_input_channels(source.state_dict()[weight], after))
    assert report.coverage == 1.0
    assert_accounts_for(report, source.state_dict(), target)


def test_later_convolutions_keep_their_input_channels() -> None:
    source, target = make("cnn", 0, channels=[16, 32]), make("cnn", 1, channels=[8, 32])
    report = load(source.state_dict(), target, min_coverage=0.0)
    assert report.adapted == ()
    assert ("backbone.stages.1.0.weight", "shape (32, 16, 3, 3) in the source, (32, 8, 3, 3) in the network") in [
        (pair.target, pair.how) for pair in report.dropped
    ]


@pytest.mark.parametrize(("before", "after"), [(8, 12), (12, 8)])
def test_positions_take_another_size_of_image(before: int, after: int) -> None:
    source, target = make("vit", 0, shape=(1, before, before)), make("vit", 1, shape=(1, after, after))
    report = load(source.state_dict(), target)
    key = "backbone.stem.position_embedding"
    assert [(pair.target, pair.how) for pair in report.adapted] == [(key, "position_embedding")]
    expected = resample_position_embedding(source.state_dict()[key], (after // 2, after // 2), 0)
    assert torch.equal(target.state_dict()[key], expected)


def test_positions_with_a_class_token_are_found_by_their_name() -> None:
    class Embedding(nn.Module):
        def __init__(self, tokens: int) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.randn(1, tokens, 4, generator=make_generator(tokens)))

    source, target = Embedding(1 + 9).state_dict(), Embedding(1 + 16)
    report = load(source, target)
    assert [pair.how for pair in report.adapted] == ["position_embedding"]
    assert torch.equal(target.pos_embed[:, :1], source["pos_embed"][:, :1])
    assert [pair.how for pair in load(source, Embedding(12), min_coverage=0.0).dropped] == [
        "shape (1, 10, 4) in the source, (1, 12, 4) in the network"
    ]


def test_what_is_not_loaded_equals_a_fresh_network() -> None:
    for model in BUILDERS:
        source, target, fresh = make(model, 0, FIVE).state_dict(), make(model, 1), make(model, 2)
        with global_stream(make_generator("weights", 2)):
            load(source, target, reset=True)
        for key, value in target.state_dict().items():
            assert torch.equal(value, fresh.state_dict()[key] if key.startswith("heads.") else source[key]), key


@pytest.mark.parametrize("model", ["cnn", "vit"])
def test_the_order_of_the_keys_does_not_matter(model: str) -> None:
    source = make(model, 0, FIVE).state_dict() | {"extra.b": torch.ones(2), "extra.a": torch.ones(3)}
    shuffled = dict(random.Random(0).sample(list(source.items()), len(source)))
    assert list(shuffled) != list(source)
    first, second = make(model, 1), make(model, 1)
    assert load(source, first) == load(shuffled, second)
    assert equal(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "network.", "module._orig_mod."])
def test_prefixes_do_not_matter(prefix: str) -> None:
    source, target = make("resnet", 0), make("resnet", 1)
    report = load({prefix + key: value for key, value in source.state_dict().items()}, target)
    assert report.coverage == 1.0
    assert equal(target.state_dict(), source.state_dict())


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_a_bare_backbone_loads(prefix: str) -> None:
    source, target = make("resnet", 0), make("resnet", 1)
    report = load({prefix + key: value for key, value in source.backbone.state_dict().items()}, target)
    assert report.coverage == 1.0
    assert set(report.missing) == {"heads.digit.linear.weight", "heads.digit.linear.bias"}
    assert equal(target.backbone.state_dict(), source.backbone.state_dict())


def test_compiled_networks_load_as_plain_ones() -> None:
    source, target = make("mlp", 0), make("mlp", 1)
    load(source.state_dict(), torch.compile(target, backend="eager"))
    assert equal(target.state_dict(), source.state_dict())
    load(torch.compile(source, backend="eager").state_dict(), target)
    assert equal(target.state_dict(), source.state_dict())


def test_a_key_map_renames() -> None:
    source, target = make("mlp", 0), make("mlp", 1)
    state = {key.replace("backbone.stages.", "layers."): value for key, value in source.state_dict().items()}
    report = load(state, target, key_map=[{"pattern": r"^layers\.", "replace": "backbone.stages."}])
    assert report.coverage == 1.0
    assert report.matched[0].source == "layers.0.0.weight"
    assert report.matched[0].target == "backbone.stages.0.0.weight"
    with pytest.raises(KeyMapError, match="renames none of the 6 source keys"):
        load(state, target, key_map=[{"pattern": "^encoder", "replace": ""}])


def test_coverage_counts_elements_of_the_backbone_on_both_sides_of_the_minimum() -> None:
    source = make("mlp", 0, widths=[8, 8]).state_dict()
    del source["backbone.stages.1.0.weight"]
    share = (64 * 8 + 8 + 8) / (64 * 8 + 8 + 8 * 8 + 8)
    target = make("mlp", 1, widths=[8, 8])
    assert load(source, target, min_coverage=share).coverage == share
    with pytest.raises(CoverageError):
        load(source, target, min_coverage=share + 1e-9)


def test_too_little_coverage_is_explained_and_changes_nothing() -> None:
    source, target = make("mlp", 0), make("mlp", 1)
    before = copy_of(target)
    state = {key.replace("stages", "layers"): value for key, value in source.state_dict().items()}
    state |= {"backbone.stages.1.0.weight": torch.zeros(3, 3)}
    with pytest.raises(CoverageError) as caught:
        load(state, target, reset=True)
    assert str(caught.value) == (
        "Only 0.0% of the backbone's elements fit; `min_coverage = 0.5`. Largest missing: "
        "`backbone.stages.1.0.weight` (16,384 elements, shape (3, 3) in the source, (128, 128) in the network); "
        "`backbone.stages.0.0.weight` (8,192 elements, nearest source key `backbone.layers.0.0.weight`); "
        "`backbone.stages.0.0.bias` (128 elements, nearest source key `backbone.layers.0.0.bias`); "
        "`backbone.stages.1.0.bias` (128 elements, nearest source key `backbone.layers.1.0.bias`). "
        "Did you forget a key_map?"
    )
    assert equal(target.state_dict(), before)


def test_the_five_largest_gaps_are_listed() -> None:
    target = make("mlp", 0, widths=[2, 3, 4, 5, 6, 7])
    with pytest.raises(CoverageError) as caught:
        load({"unlike": torch.zeros(1)}, target)
    message = str(caught.value)
    assert message.count("no source key like it") == 5
    assert [f"`backbone.stages.{i}.0.weight`" in message for i in range(6)] == [True, False, True, True, True, True]


def test_tied_tensors_count_once_and_load_by_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(3, 3, bias=False)
            self.other = nn.Linear(3, 1, bias=False)
            self.decode = nn.Linear(3, 3, bias=False)
            self.decode.weight = self.encode.weight

    weight = torch.arange(9.0).reshape(3, 3)
    for name, second in (("encode", "decode"), ("decode", "encode")):
        network = Tied()
        source = {f"{name}.weight": weight}
        report = load(source, network)
        assert {pair.target: pair.how for pair in report.matched} == {
            f"{name}.weight": "equal",
            f"{second}.weight": "tied",
        }
        assert report.coverage == 9 / 12
        assert torch.equal(network.encode.weight, weight)
        assert network.decode.weight is network.encode.weight
        assert_accounts_for(report, source, network)
    both = {"encode.weight": weight, "decode.weight": weight + 1}
    report = load(both, network)
    assert [(pair.target, pair.how) for pair in report.dropped] == [
        ("decode.weight", "tied to `encode.weight`, which has other values in the source")
    ]
    assert torch.equal(network.decode.weight, weight)
    assert_accounts_for(report, both, network)


def test_integer_buffers_are_copied_and_are_no_elements() -> None:
    source, target = make("resnet", 0), make("resnet", 1)
    counter = "backbone.stem.1.num_batches_tracked"
    source.state_dict()[counter].fill_(17)
    report = load(source.state_dict(), target)
    assert target.state_dict()[counter] == 17
    assert next(pair for pair in report.matched if pair.target == counter).elements == 0
    wrong = source.state_dict() | {counter: torch.tensor(3.5)}
    assert [pair.how for pair in load(wrong, target).dropped] == [
        "torch.float32 in the source, torch.int64 in the network"
    ]


def test_other_floating_types_are_converted() -> None:
    source, target = make("mlp", 0), make("mlp", 1)
    state = {key: value.to(torch.bfloat16) for key, value in source.state_dict().items()}
    load(state, target)
    assert all(torch.equal(value, state[key].float()) for key, value in target.state_dict().items())
    assert all(value.dtype == torch.float32 for value in target.state_dict().values())


def test_weights_that_are_not_finite_are_refused() -> None:
    source, target = make("mlp", 0).state_dict(), make("mlp", 1)
    before = copy_of(target)
    source["backbone.stages.0.0.bias"][3] = float("nan")
    with pytest.raises(
        NonFiniteError, match=r"`backbone.stages.0.0.bias` of the source holds values that are not finite"
    ):
        load(source, target)
    assert equal(target.state_dict(), before)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_min_coverage_is_checked(value: float) -> None:
    with pytest.raises(
        HyperparameterError, match=rf"`min_coverage` should be in \[0, 1\]. Found `min_coverage = {value}"
    ):
        load({}, make("mlp", 0), min_coverage=value)


def test_files_and_containers_load(tmp_path: Path) -> None:
    source = make("mlp", 0)
    torch.save({"state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "last.ckpt")
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    for path, container in ((tmp_path / "last.ckpt", "state_dict"), (str(tmp_path / "model.safetensors"), "")):
        target = make("mlp", 1)
        report = load(path, target)
        assert (report.coverage, report.container) == (1.0, container)
        assert equal(target.state_dict(), source.state_dict())


def test_what_cannot_be_reset_is_named_before_anything_changes() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.scaling = nn.Module()
            self.scaling.factor = nn.Parameter(torch.ones(2))

    network = Scaled()
    before = copy_of(network)
    with pytest.raises(StateDictError) as caught:
        reset_parameters(network)
    assert str(caught.value) == (
        "`scaling` (Module) owns parameters but has no `reset_parameters()`, so that `reset=True` cannot draw them "
        "anew. Add that method, or load into a newly built network."
    )
    assert equal(network.state_dict(), before)


def test_strict_loading_takes_all() -> None:
    source, target = make("resnet", 0), make("resnet", 1)
    load_strict(target, {f"module.{key}": value for key, value in source.state_dict().items()}, source="a.pt")
    assert equal(target.state_dict(), source.state_dict())


def test_strict_loading_lists_what_does_not_fit_and_changes_nothing() -> None:
    state, target = make("mlp", 0, FIVE).state_dict(), make("mlp", 1)
    before = copy_of(target)
    del state["backbone.stages.0.0.bias"]
    state["extra"] = torch.zeros(3)
    with pytest.raises(StateDictMismatch) as caught:
        load_strict(target, state, source="a.pt")
    assert str(caught.value) == (
        "a.pt does not fit the network: `backbone.stages.0.0.bias` is missing; `heads.digit.linear.weight` has shape "
        "(5, 128) instead of (10, 128); `heads.digit.linear.bias` has shape (5,) instead of (10,); `extra` of shape "
        "(3,) is not in the network."
    )
    assert equal(target.state_dict(), before)
    with pytest.raises(StateDictMismatch, match=r"is missing; and 1 more\.$"):
        load_strict(target, {}, source="a.pt")


def test_strict_loading_refuses_weights_that_are_not_finite() -> None:
    state = make("mlp", 0).state_dict()
    state["heads.digit.linear.bias"][0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"`heads.digit.linear.bias` of a.pt"):
        load_strict(make("mlp", 1), state, source="a.pt")


def test_it_is_public_and_loads_no_framework() -> None:
    assert transfuse.load is load
    code = (
        "import sys, transfuse; transfuse.load; import transfuse.models; "
        "print([m for m in ('lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'mlflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
