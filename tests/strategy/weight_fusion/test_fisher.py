from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.strategy.weight_fusion.task_vector_inputs import State, networks
from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask, Seeds, SourceAndTarget
from transfuse.strategy.weight_fusion import FisherMerging, LinearMerge, fisher, merge
from transfuse.strategy.weight_fusion.fisher_information import fisher_diagonal
from transfuse.types import HyperparameterError, NeedsContextError, NonFiniteError, StateDictError, StateDictMismatch


def random_states(count: int) -> tuple[list[State], list[State]]:
    """Models, and positive numbers for each of their elements."""
    stream = torch.Generator().manual_seed(0)
    shapes = {"a": (5, 4), "b": (7,)}

    def draw() -> State:
        return {key: torch.randn(shape, generator=stream, dtype=torch.float64) for key, shape in shapes.items()}

    return [draw() for _ in range(count)], [
        {key: value.square() for key, value in draw().items()} for _ in range(count)
    ]


@pytest.mark.parametrize("favor", ["none", "first"])
@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_golden_of_the_papers_code(golden: Path, favor: str, normalize: str) -> None:
    content = np.load(golden / "fisher_merge_mmatena.npz")

    def states(prefix: str) -> list[dict[str, np.ndarray]]:
        return [{str(part): content[f"in_{prefix}{model}_{part}"] for part in (0, 1)} for model in range(3)]

    options = {"favor": favor, "normalize": normalize, "floor": 1e-3, "weights": content["in_coeffs"].tolist()}
    merged = merge(states("m"), method="fisher", statistics=states("f"), **options)
    case = f"out_fav{int(favor == 'first')}_{'norm' if normalize == 'l2' else 'raw'}"
    for part in ("0", "1"):
        np.testing.assert_allclose(merged[part].numpy(), content[f"{case}_{part}"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalized", [False, True])
def test_golden_of_another_library(golden: Path, normalized: bool) -> None:
    """Which adds its floor to F and to the norm: both are added to what is handed in here."""
    models, _ = networks(golden, "f64")
    expected = load_file(golden / f"fisher_given_weights{'_normalized' if normalized else ''}_f64.safetensors")
    given = [
        {key.rpartition("/")[2]: expected[key] for key in expected if key.startswith(f"fisher/task{index}/")}
        for index in (1, 2, 3)
    ]
    statistics = []
    for state in given:
        norm = float(torch.cat([value.flatten() for value in state.values()]).norm()) + 1e-6 if normalized else 1.0
        statistics.append({key: (value + 1e-6) / norm for key, value in state.items()})
    merged = merge(models, method="fisher", statistics=statistics, floor=1e-12)
    for key, value in merged.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-12)


def test_constant_information_is_the_weighted_mean() -> None:
    models, _ = random_states(3)
    constant = [{key: torch.full_like(value, 0.3) for key, value in model.items()} for model in models]
    weights = (0.5, 1.0, 2.0)
    merged = FisherMerging(weights=weights).merged(models, statistics=constant)
    for key, value in LinearMerge(weights=weights).merged(models).items():
        torch.testing.assert_close(merged[key], value, rtol=1e-12, atol=1e-14)


def test_all_information_in_one_model_gives_that_model() -> None:
    models, information = random_states(3)
    information[1] = {key: torch.full_like(value, 1e15) for key, value in information[1].items()}
    merged = FisherMerging().merged(models, statistics=information)
    for key, value in models[1].items():
        torch.testing.assert_close(merged[key], value, rtol=1e-12, atol=1e-13)


def test_order_of_models_statistics_and_weights_does_not_matter() -> None:
    models, information = random_states(3)
    first = FisherMerging(weights=(1.0, 2.0, 3.0)).merged(models, statistics=information)
    turned = FisherMerging(weights=(3.0, 1.0, 2.0)).merged(
        [models[2], *models[:2]], statistics=[information[2], *information[:2]]
    )
    for key, value in first.items():
        torch.testing.assert_close(turned[key], value, rtol=1e-12, atol=1e-14)


def test_a_favored_first_model_stays_where_no_model_knows_better() -> None:
    models, information = random_states(2)
    information = [{key: torch.zeros_like(value) for key, value in state.items()} for state in information]
    merged = FisherMerging(favor="first").merged(models, statistics=information)
    for key, value in models[0].items():
        torch.testing.assert_close(merged[key], value, rtol=1e-14, atol=0)
    even = FisherMerging().merged(models, statistics=information)
    torch.testing.assert_close(even["a"], (models[0]["a"] + models[1]["a"]) / 2)


def test_normalized_information_has_no_unit() -> None:
    models, information = random_states(2)
    larger = [information[0], {key: 1e6 * value for key, value in information[1].items()}]
    method = FisherMerging(normalize="l2", floor=1e-30)
    first, other = (method.merged(models, statistics=found) for found in (information, larger))
    torch.testing.assert_close(other["a"], first["a"], rtol=1e-10, atol=1e-12)
    plain = replace(method, normalize="none").merged(models, statistics=larger)
    assert not torch.allclose(plain["a"], first["a"], atol=1e-3)


def test_tensors_without_information_are_averaged() -> None:
    models, information = random_states(2)
    for normalize in ("none", "l2"):
        merged = FisherMerging(weights=(1.0, 3.0), normalize=normalize).merged(
            models, statistics=[{"a": state["a"]} for state in information]
        )
        torch.testing.assert_close(merged["b"], (models[0]["b"] + 3 * models[1]["b"]) / 4)


def test_bad_input_is_told() -> None:
    models, information = random_states(2)
    with pytest.raises(NeedsContextError, match="fisher needs `statistics`, which are measured on data"):
        merge(models, method="fisher")
    with pytest.raises(StateDictMismatch, match=r"`a` is \(5, 4\) in model 0 and \(4, 5\) in `statistics` of model 1"):
        FisherMerging().merged(models, statistics=[information[0], {**information[1], "a": torch.ones(4, 5)}])
    with pytest.raises(StateDictError, match="`b` in `statistics` of model 1 should be >= 0. Found -1"):
        FisherMerging().merged(models, statistics=[information[0], {**information[1], "b": -torch.ones(7)}])
    with pytest.raises(NonFiniteError, match="`b` of `statistics` of model 0 has 7 of 7 values that are NaN"):
        FisherMerging().merged(
            models, statistics=[{**information[0], "b": torch.full((7,), torch.nan)}, information[1]]
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"floor": 0.0}, "`floor` should be a number > 0. Found `floor = 0.0`."),
        ({"labels": "true"}, "`labels` should be one of expected, sampled, empirical. Found `labels = true`."),
        ({"normalize": "l1"}, "`normalize` should be one of none, l2. Found `normalize = l1`."),
        ({"favor": "last"}, "`favor` should be one of none, first. Found `favor = last`."),
        ({"examples": 1.5}, "`examples` should be a whole number >= 1. Found `examples = 1.5`."),
        (
            {"weights": (1.0, -1.0)},
            "`weights` should be >= 0, and one of them positive. Found `weights = [1.0, -1.0]`.",
        ),
        ({"weights": (0.0, 0.0)}, "`weights` should be >= 0, and one of them positive. Found `weights = [0.0, 0.0]`."),
        (
            {"weights": (0.0, 1.0), "favor": "first"},
            "`weights` should be positive for the first model with favor=first. Found `weights = [0.0, 1.0]`.",
        ),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], message: str) -> None:
    models, information = random_states(2)
    with pytest.raises(HyperparameterError) as error:
        FisherMerging(**fields).merged(models, statistics=information)
    assert str(error.value) == message


def test_a_run_measures_each_member_on_its_own_task(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = FisherMerging(examples=48).apply(context)
    assert fused.network is not None
    members, train = tuple(context.base_models), context.development.train
    information = [
        fisher_diagonal(member.network(), (task,), train)
        for member, task in zip(members, context.development.tasks, strict=True)
    ]
    merged = FisherMerging().merged(
        [_backbone(member.state) for member in members], statistics=[_backbone(found) for found in information]
    )
    found = fused.network.state_dict()
    for key, value in merged.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(found["heads.sign.linear.weight"], members[0].state["heads.sign.linear.weight"])
    assert fused.validation.keys() == {"sign", "value"} and fused.looks == 0


def test_a_second_run_reads_what_the_first_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def counting(*args, **kwargs) -> dict[str, Tensor]:
        measured.append(1)
        return fisher_diagonal(*args, **kwargs)

    monkeypatch.setattr(fisher, "fisher_diagonal", counting)
    setting = make_setting(make_development(SIGN))

    def run(method: FisherMerging) -> State:
        network = method.apply(make_context(setting, Seeds(count=2), tmp_path)).network
        assert network is not None
        return network.state_dict()

    first, again = run(FisherMerging()), run(FisherMerging())
    assert len(measured) == 2 and all(torch.equal(first[key], again[key]) for key in first)
    run(FisherMerging(floor=1e-3, normalize="l2", favor="first"))  # made of the same numbers
    assert len(measured) == 2
    run(FisherMerging(examples=8))
    run(FisherMerging(labels="sampled"))
    run(FisherMerging(labels="empirical"))
    assert len(measured) == 8


def test_a_source_model_is_measured_on_the_source_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_development(SIGN)
    shifted = replace(source.train, inputs=source.train.inputs + 10.0)
    setting = make_setting(replace(make_development(SIGN), source=replace(source, train=shifted)))
    means: list[float] = []

    def spying(network, tasks, split, **options) -> dict[str, Tensor]:
        means.append(float(split.inputs.mean()))
        return fisher_diagonal(network, tasks, split, **options)

    monkeypatch.setattr(fisher, "fisher_diagonal", spying)
    context = make_context(setting, SourceAndTarget(), tmp_path)
    kinds = [member.trained_on for member in context.base_models.description.members]
    FisherMerging().apply(context)
    assert [mean > 5 for mean in means] == [kind == "source" for kind in kinds] and set(kinds) == {"source", "target"}


def _backbone(state: State) -> State:
    return {key: value for key, value in state.items() if key.startswith("backbone.")}
