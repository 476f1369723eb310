"""What holds for every shipped architecture and any tasks."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from transfuse.models import (
    Architecture,
    Network,
    build_cnn,
    build_custom,
    build_mlp,
    build_resnet,
    build_vit,
)
from transfuse.randomness import make_generator
from transfuse.types import DataError, HyperparameterError, Task

BUILDERS = {"mlp": build_mlp, "cnn": build_cnn, "resnet": build_resnet, "vit": build_vit}
CONF = Path(__file__).parents[2] / "conf" / "model"

CLASSES = Task(name="digit", kind="classification", outputs=10)
LABELS = Task(name="shapes", kind="multilabel", outputs=3)
VALUES = Task(name="size", kind="regression", outputs=2, location=(100.0, -5.0), scale=(10.0, 0.5))
TASKS = {
    "classification": (CLASSES,),
    "multilabel": (LABELS,),
    "regression": (VALUES,),
    "all": (CLASSES, LABELS, VALUES),
}

every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@every_builder
@pytest.mark.parametrize("tasks", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 14, 14), (3, 8, 12)], ids=str)
def test_outputs_have_the_shape_of_each_task(
    build: Callable[..., Network], tasks: tuple[Task, ...], shape: tuple[int, ...]
) -> None:
    network = build(input_shape=shape, tasks=tasks)
    outputs = network(torch.randn(5, *shape, generator=make_generator("inputs")))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {t.name: (5, t.outputs) for t in tasks}
    assert all(torch.isfinite(output).all() for output in outputs.values())


@every_builder
def test_features_go_through_stem_stages_and_neck(build: Callable[..., Network]) -> None:
    network = build(input_shape=(1, 8, 8), tasks=(CLASSES,)).eval()
    inputs = torch.randn(3, 1, 8, 8, generator=make_generator("inputs"))
    hidden = network.backbone.stem(inputs)
    for stage in network.backbone.stages:
        hidden = stage(hidden)
    features = network.backbone.neck(hidden)
    assert features.shape == (3, network.backbone.features)
    assert torch.equal(network.heads["digit"](features), network(inputs)["digit"])


@every_builder
def test_networks_can_be_traced(build: Callable[..., Network]) -> None:
    network = build(input_shape=(1, 8, 8), tasks=TASKS["all"]).eval()
    traced = torch.fx.symbolic_trace(network)
    inputs = torch.randn(7, 1, 8, 8, generator=make_generator("inputs"))
    for name, output in network(inputs).items():
        assert torch.equal(traced(inputs)[name], output)


@every_builder
def test_groups_partition_the_parameters_and_end_in_the_heads(build: Callable[..., Network]) -> None:
    network = build(input_shape=(1, 8, 8), tasks=TASKS["all"])
    groups = network.groups()
    names = [name for _, parameters in groups for name in parameters]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert groups[-1][0] == "head"
    assert {name.split(".")[0] for name in groups[-1][1]} == {"heads"}
    assert [name for name, _ in groups if name.startswith("stages")] == [
        f"stages.{index}" for index in range(len(network.backbone.stages))
    ]
    assert all(parameters for _, parameters in groups)


@every_builder
def test_weights_depend_on_the_generator_alone(build: Callable[..., Network]) -> None:
    architecture = Architecture(name="any", recipe={}, make=build)

    def weights(seed: int) -> dict[str, torch.Tensor]:
        network = architecture.build((1, 8, 8), TASKS["all"], make_generator(seed))
        return dict(network.named_parameters())

    before = torch.random.get_rng_state()
    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.digit.linear.weight"], other["heads.digit.linear.weight"])


@every_builder
def test_every_parameter_gets_a_gradient(build: Callable[..., Network]) -> None:
    network = build(input_shape=(1, 8, 8), tasks=TASKS["all"])
    outputs = network(torch.randn(6, 1, 8, 8, generator=make_generator("inputs")))
    sum(output.square().sum() for output in outputs.values()).backward()
    # the bias of attention keys shifts all scores of a query alike: softmax does not see it
    dead = [n for n, p in network.named_parameters() if p.grad is None or ((p.grad == 0).all() and "key.bias" not in n)]
    assert dead == []


@pytest.mark.parametrize("model", ["cnn", "resnet", "vit"])
def test_flat_inputs_are_answered_with_the_mlp(model: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        BUILDERS[model](input_shape=(30,), tasks=(CLASSES,))
    assert str(caught.value) == (
        f"model={model} takes images (channels, height, width). Found inputs of shape (30,). Did you mean model=mlp?"
    )


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        ("mlp", {"widths": []}, "`widths` should be a list of one or more integers >= 1. Found `widths = []`."),
        ("mlp", {"widths": [8, 0]}, "`widths` should be a list of one or more integers >= 1. Found `widths = [8, 0]`."),
        ("mlp", {"widths": 8}, "`widths` should be a list of one or more integers >= 1. Found `widths = 8`."),
        (
            "mlp",
            {"activation": "relo"},
            "`activation` should be one of relu, gelu, tanh, silu. Found `activation = relo`.",
        ),
        ("mlp", {"dropout": 1.0}, "`dropout` should be in [0, 1). Found `dropout = 1.0`."),
        ("cnn", {"dropout": -0.1}, "`dropout` should be in [0, 1). Found `dropout = -0.1`."),
        ("cnn", {"features": 0}, "`features` should be an integer >= 1. Found `features = 0`."),
        (
            "cnn",
            {"channels": [4, 4, 4, 4]},
            "`channels` should have fewer entries for images of 8 x 8: each stage halves height and width. "
            "Found `channels = [4, 4, 4, 4]`, which needs at least 16 x 16.",
        ),
        (
            "resnet",
            {"channels": [8, 16]},
            "`blocks` should be as long as `channels = [8, 16]`. Found `blocks = [1, 1, 1]`.",
        ),
        ("resnet", {"blocks": [1, 0, 1]}, "`blocks` should be a list of one or more integers >= 1. Found "),
        ("vit", {"depth": 0}, "`depth` should be an integer >= 1. Found `depth = 0`."),
        ("vit", {"width": 30}, "`width` should be a multiple of `heads = 4`. Found `width = 30`."),
        ("vit", {"mlp_ratio": 0.0}, "`mlp_ratio` should be > 0. Found `mlp_ratio = 0.0`."),
        ("vit", {"dropout": 1}, "`dropout` should be in [0, 1). Found `dropout = 1`."),
        (
            "vit",
            {"patch": 3},
            "`patch` should divide the image's height and width. Found `patch = 3` and images of 8 x 8.",
        ),
    ],
)
def test_sizes_out_of_range_are_named(model: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        BUILDERS[model](input_shape=(1, 8, 8), tasks=(CLASSES,), **fields)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["type", "a.b", ""])
def test_task_names_that_cannot_be_keys_are_named(name: str) -> None:
    with pytest.raises(DataError, match=f"A task cannot be named `{name}`"):
        build_mlp(input_shape=(4,), tasks=(Task(name=name, kind="classification", outputs=2),))


def test_equal_task_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"Task names should be unique. Found \['digit', 'digit'\]"):
        build_mlp(input_shape=(4,), tasks=(CLASSES, CLASSES))


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "vit", "custom"])
def test_configs_hold_every_field_with_its_default(model: str) -> None:
    config = yaml.safe_load((CONF / f"{model}.yaml").read_text())
    config.pop("defaults", None)  # of the group `model/sharing`
    module, _, name = config.pop("_target_").rpartition(".")
    builder = getattr(importlib.import_module(module), name)
    assert builder is {**BUILDERS, "custom": build_custom}[model]
    parameters = inspect.signature(builder).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in ("input_shape", "tasks")}
    assert list(config) == list(defaults)
    for field, value in config.items():
        default = defaults[field]
        if value == "???":
            assert default is inspect.Parameter.empty
        else:
            assert (list(default) if isinstance(default, tuple) else default) == value


@pytest.mark.parametrize("model", ["mlp", "cnn", "vit"])
def test_dropout_acts_in_training_alone(model: str) -> None:
    network = BUILDERS[model](input_shape=(1, 8, 8), tasks=(CLASSES,), dropout=0.5)
    inputs = torch.randn(8, 1, 8, 8, generator=make_generator("inputs"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(network(inputs)["digit"], network(inputs)["digit"])
        network.eval()
        assert torch.equal(network(inputs)["digit"], network(inputs)["digit"])
