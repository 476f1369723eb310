"""`fit_on: out_of_fold`: a combiner of training labels that no member knew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import transfuse
from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.pool import describe
from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import Seeds
from transfuse.base_models.pool import Pool
from transfuse.metrics import scores
from transfuse.models import build_mlp
from transfuse.strategy.base import Context
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.output_fusion import (
    OutputFusion,
    Stacking,
    SuperLearner,
    TemperatureScaled,
    WeightedAverage,
    fuse,
)
from transfuse.strategy.output_fusion.fold_average import FoldAverage, average_folds
from transfuse.strategy.weights import Given
from transfuse.types import HyperparameterError, IncompatibleStrategyError, PredictionError, SplitName, Task

OUT_OF_FOLD = Stacking(fit_on="out_of_fold")
FOLDS = Stacking(fit_on="out_of_fold", members="folds")


def retrainable_context(folder: Path) -> Context:
    setting, recipe = make_setting(make_development(SIGN)), Seeds(count=2)
    context = make_context(setting, recipe, folder)
    assert isinstance(context.base_models, Pool)
    pool = replace(context.base_models, lay_out=lambda rest: recipe.members(replace(setting, development=rest)))
    return replace(context, base_models=pool, cross_fit=3)


def test_it_is_fitted_on_out_of_fold_predictions_and_validation_scores_are_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = retrainable_context(tmp_path)
    asked: list[SplitName] = []
    logits_of_split = Pool.logits

    def noted(pool: Pool, split: SplitName) -> dict[str, Tensor]:
        asked.append(split)
        return logits_of_split(pool, split)

    monkeypatch.setattr(Pool, "logits", noted)
    fused = OUT_OF_FOLD.apply(context)
    assert asked == ["validation"]  # members' predictions of their own training examples are never used
    development = context.development
    labels_N = development.train.targets["sign"]
    folds_N = folds(labels_N, 48, 3, context.generator("out_of_fold"))
    fit_MNC = context.base_models.out_of_fold_logits(folds_N)["sign"]
    expected = fuse(fit_MNC, method="stacking", labels=labels_N)
    assert fused.combiners is not None
    outputs_NC = expected.combiner(context.base_models.logits("validation")["sign"])
    assert torch.equal(fused.combiners["sign"](context.base_models.logits("validation")["sign"]), outputs_NC)
    assert fused.validation["sign"] == pytest.approx(scores(SIGN, outputs_NC, development.validation.targets["sign"]))
    assert fused.fit["sign"] == pytest.approx(scores(SIGN, expected.logits_NC, labels_N))
    assert fused.looks == 0
    # the members at inference are those of all training data
    assert fused.network is not None
    outputs = fused.network(development.validation.inputs)["sign"]
    torch.testing.assert_close(outputs, outputs_NC, rtol=1e-5, atol=1e-5)
    assert len(context.base_models.used()) == 2 + 3 * 2


def test_members_may_be_the_averages_of_their_fold_models(tmp_path: Path) -> None:
    context = retrainable_context(tmp_path)
    fused = FOLDS.apply(context)
    names = [member.description.name for member in context.base_models.used()]
    assert names == [f"seeds-{member}-fold{fold}" for fold in range(3) for member in range(2)]  # none on all data
    development, labels_N = context.development, context.development.train.targets["sign"]
    folds_N = folds(labels_N, 48, 3, context.generator("out_of_fold"))
    inputs, held = development.validation.inputs, development.validation.targets["sign"]
    pools = context.base_models.fold_pools(folds_N)
    with torch.no_grad():
        # p_m = mean_k p_mk, by hand
        outputs_KMNC = [[member.network()(inputs)["sign"].softmax(1) for member in pool] for pool in pools]
    averaged_MNC = torch.stack([torch.stack(outputs_MNC) for outputs_MNC in outputs_KMNC]).double().mean(0).log()
    fit_MNC = context.base_models.out_of_fold_logits(folds_N)["sign"]
    expected = fuse(fit_MNC, method="stacking", labels=labels_N)
    expected_NC = expected.combiner(averaged_MNC)
    assert fused.network is not None
    with torch.no_grad():
        torch.testing.assert_close(fused.network(inputs)["sign"].double(), expected_NC, rtol=1e-5, atol=1e-5)
        members = fused.network.get_submodule("members")
        assert len(list(members.children())) == 2 * 3
    assert fused.validation["sign"] == pytest.approx(scores(SIGN, expected_NC, held), abs=1e-5)
    assert fused.fit["sign"] == pytest.approx(scores(SIGN, expected.logits_NC, labels_N))
    assert fused.combiners is None  # stored predictions are those of other members
    assert fused.members == (0, 1) and fused.looks == 0
    refit = OUT_OF_FOLD.apply(context)
    assert refit.network is not None
    assert not torch.allclose(refit.network(inputs)["sign"].double(), expected_NC, atol=1e-3)


def test_values_of_fold_models_are_averaged(tmp_path: Path) -> None:
    setting, recipe = make_setting(make_development(VALUE)), Seeds(count=2)
    context = make_context(setting, recipe, tmp_path)
    assert isinstance(context.base_models, Pool)
    pool = replace(context.base_models, lay_out=lambda rest: recipe.members(replace(setting, development=rest)))
    context = replace(context, base_models=pool, cross_fit=2)
    fused = FOLDS.apply(context)
    assert fused.network is not None and fused.weights == {"value": None}
    outputs = fused.network(context.development.validation.inputs)["value"]
    targets = context.development.validation.targets["value"]
    assert fused.validation["value"] == pytest.approx(scores(VALUE, outputs, targets), rel=1e-4)


def test_a_member_without_influence_takes_its_fold_models_along() -> None:
    inner = WeightedAverage(weights=Given(values=[1.0, 0.0, 3.0])).combine(make_predictions("classification"))
    average = FoldAverage(inner, num_folds=2)
    assert average.unused == {2, 3}
    logits_XNC = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    p_MNC = logits_XNC.softmax(2).reshape(3, 2, 5, 4).mean(1)
    torch.testing.assert_close(average(logits_XNC).exp(), 0.25 * p_MNC[0] + 0.75 * p_MNC[2])
    odds = average_folds(logits_XNC.reshape(3, 2, 5, 4), "multilabel")
    torch.testing.assert_close(odds.sigmoid(), logits_XNC.sigmoid().reshape(3, 2, 5, 4).mean(1))


@pytest.mark.parametrize("wrapper", [TemperatureScaled(inner=FOLDS), SuperLearner(candidates=[FOLDS])])
def test_what_wraps_it_has_its_members(wrapper: OutputFusion) -> None:
    assert (wrapper.fit_on, wrapper.members) == ("out_of_fold", "folds")


def test_candidates_agree_in_members() -> None:
    with pytest.raises(HyperparameterError, match="`candidates` should agree in `members`. Found folds and refit."):
        SuperLearner(candidates=[FOLDS, OUT_OF_FOLD])


def test_fold_models_need_folds() -> None:
    message = "`members` should be refit with `fit_on = validation`, .* Found `members = folds`.*out_of_fold`"
    with pytest.raises(HyperparameterError, match=message):
        Stacking(members="folds")
    with pytest.raises(HyperparameterError, match="`members` should be refit or folds. Found `members = all`."):
        Stacking(members="all", fit_on="out_of_fold")  # type: ignore[arg-type]


def test_folds_are_stratified_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, seen = retrainable_context(tmp_path), []
    monkeypatch.setattr(Pool, "out_of_fold_logits", lambda pool, folds_N: seen.append(folds_N) or pool.logits("train"))
    OUT_OF_FOLD.apply(context)
    labels_N = context.development.train.targets["sign"]
    for label in range(2):
        counts = seen[0][labels_N == label].bincount(minlength=3)
        assert int(counts.max() - counts.min()) <= 1


def test_predictions_that_are_not_finite_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"sign": torch.full((2, 48, 2), torch.nan)}
    monkeypatch.setattr(Pool, "out_of_fold_logits", lambda pool, folds_N: broken)
    with pytest.raises(PredictionError, match="Member 0 predicts NaN or infinity on train: first at .* id 0"):
        OUT_OF_FOLD.apply(retrainable_context(tmp_path))


def test_pools_of_given_weights_are_refused() -> None:
    message = r"trains the base models on parts of .* Found base_models=given.*Did you mean fit_on=validation\?"
    with pytest.raises(IncompatibleStrategyError, match=message):
        OUT_OF_FOLD.check(make_development(SIGN), describe([SIGN], 2))
    Stacking().check(make_development(SIGN), describe([SIGN], 2))
    OUT_OF_FOLD.check(make_development(SIGN), replace(describe([SIGN], 2), retrainable=True))


def test_validation_labels_are_not_needed() -> None:
    development = make_development(SIGN)
    unlabelled = replace(development.validation, targets={"sign": torch.full((24,), -1)})
    development = replace(development, validation=unlabelled)
    OUT_OF_FOLD.check(development, replace(describe([SIGN], 2), retrainable=True))
    with pytest.raises(IncompatibleStrategyError, match="needs validation labels"):
        Stacking().check(development, describe([SIGN], 2))


def test_each_task_of_several_has_its_combiner(tmp_path: Path) -> None:
    setting, recipe = make_setting(make_development(SIGN, VALUE)), Seeds(count=2)
    context = make_context(setting, recipe, tmp_path)
    assert isinstance(context.base_models, Pool)
    lay_out = lambda rest: recipe.members(replace(setting, development=rest))  # noqa: E731
    fused = OUT_OF_FOLD.apply(replace(context, base_models=replace(context.base_models, lay_out=lay_out), cross_fit=2))
    assert set(fused.validation) == set(fused.fit) == {"sign", "value"}


@pytest.mark.parametrize("fit_on", ["validation", "out_of_fold"])
def test_the_neural_learner_in_a_run(fit_on: str, tmp_path: Path) -> None:
    context = retrainable_context(tmp_path)
    strategy = Stacking(learner="mlp", fit_on="out_of_fold" if fit_on == "out_of_fold" else "validation")
    fused, again = strategy.apply(context), strategy.apply(context)
    assert fused.validation == again.validation
    assert fused.combiners is not None and fused.network is not None
    outputs = fused.network(context.development.validation.inputs)["sign"]
    stored = fused.combiners["sign"](context.base_models.logits("validation")["sign"])
    torch.testing.assert_close(outputs, stored, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("members", ["refit", "folds"])
def test_a_run_counts_what_the_folds_cost(members: str, tmp_path: Path) -> None:
    given = ["data=digits", "base_models=seeds", "base_models.count=2", "training.epochs=2", "evaluation.cross_fit=2"]
    given += ["strategy=output_fusion/stacking", "strategy.fit_on=out_of_fold", "tracking=off", "trainer=cpu"]
    given += [f"strategy.members={members}", "trainer.progress=false", f"paths.outputs={tmp_path}"]
    record = transfuse.run(given)
    names = [model["name"] for model in record.base_models]
    whole = ["seeds-0", "seeds-1"] if members == "refit" else []
    assert names == [*whole, "seeds-0-fold0", "seeds-1-fold0", "seeds-0-fold1", "seeds-1-fold1"]
    entries = (tmp_path / "store").glob("*/record.json")
    stored = [json.loads(path.read_text())["seconds"] for path in entries]
    assert len(stored) == len(names)
    assert record.status == "finished"
    assert record.cost["base_seconds"] == pytest.approx(sum(stored))
    assert record.cost["fuse_seconds"] < sum(stored)
    assert record.budget["validation_looks"] == 0
    assert {"validation/nll", "fit/nll", "test/nll"} <= set(record.metrics)


def test_a_run_on_given_weights_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = ["data=digits", "model=mlp", f"paths.outputs={tmp_path / 'outputs'}", "tracking=off", "trainer=cpu"]
    task = Task(name="digit", kind="classification", outputs=10)
    network = build_mlp(input_shape=(64,), tasks=(task,), widths=[128, 128])
    save_file(network.state_dict(), tmp_path / "given.safetensors")
    given += ["base_models=checkpoints", f"base_models.paths=[{tmp_path / 'given.safetensors'}]"]
    with pytest.raises(IncompatibleStrategyError, match="Found base_models=checkpoints, whose weights are given"):
        transfuse.run([*given, "strategy=output_fusion/stacking", "strategy.fit_on=out_of_fold"])
    assert not (tmp_path / "outputs").exists()
