from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.pool import describe, make_context, make_development
from tests.strategy.output_fusion.properties import close, fresh
from tests.toy import CPU
from transfuse.config import read
from transfuse.randomness import make_generator
from transfuse.strategy.output_fusion import (
    Average,
    Gating,
    LeastSquares,
    LogitAverage,
    Median,
    OutputFusion,
    Stacking,
    SuperLearner,
    WeightedAverage,
    fuse,
)
from transfuse.strategy.output_fusion.super_learner import Mixture
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import Given, LeastSquaresOptimal, NllOptimal
from transfuse.training.fit import Fit
from transfuse.types import ConfigError, EmptyTaskError, HyperparameterError, IncompatibleStrategyError, Task, TaskKind

CONF = Path(__file__).parents[3] / "conf"
MEMBERS = [WeightedAverage(weights=Given(values=[float(i == j) for i in range(3)])) for j in range(3)]


def outputs(strategy: OutputFusion, predictions: Predictions) -> torch.Tensor:
    found: torch.Tensor = strategy.combine(fresh(predictions))(predictions.logits_MNC)
    return found


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_among_single_members_it_is_the_best_one(kind: str) -> None:
    predictions = make_predictions(kind)  # type: ignore[arg-type]
    losses = predictions.scores("rmse" if kind == "regression" else "nll")
    best = int(losses.argmin())
    order = [1, 2, 0]
    combiner = SuperLearner(candidates=[MEMBERS[index] for index in order]).combine(predictions)
    assert order[int(combiner.diagnostics["fusion/chosen"])] == best
    assert combiner.weights is not None and int(combiner.weights.argmax()) == best
    # what is not fitted has the same loss on held-out examples as on all
    for position, index in enumerate(order):
        name = f"fusion/held_out_{position}_weighted_average"
        assert combiner.diagnostics[name] == pytest.approx(float(losses[index]), rel=1e-9)


def test_a_mixture_of_single_members_is_the_optimal_weighted_average() -> None:
    for kind, rule in (("multilabel", NllOptimal()), ("regression", LeastSquaresOptimal())):
        predictions = make_predictions(kind, examples=60)  # type: ignore[arg-type]
        mixture = SuperLearner(candidates=MEMBERS, discrete=False).combine(predictions)
        optimal = WeightedAverage(weights=rule).combine(predictions)
        assert optimal.weights is not None
        close(mixture(predictions.logits_MNC), optimal(predictions.logits_MNC), tolerance=1e-4)
        shares = [mixture.diagnostics[f"fusion/share_{index}_weighted_average"] for index in range(3)]
        assert shares == pytest.approx(optimal.weights.tolist(), abs=1e-4)


def test_members_without_a_share_are_left_out() -> None:
    predictions = make_predictions("classification", examples=200)
    mixture = SuperLearner(candidates=MEMBERS, discrete=False).combine(predictions)
    shares = [mixture.diagnostics[f"fusion/share_{index}_weighted_average"] for index in range(3)]
    assert 0.0 in shares
    assert mixture.unused == {index for index, share in enumerate(shares) if share == 0.0}
    assert isinstance(mixture, Mixture)
    assert len(mixture.combiners) == sum(share > 0 for share in shares)


def test_a_candidate_that_overfits_is_not_chosen() -> None:
    noisy = make_predictions("classification", examples=30, outputs=3, members=8)
    noise_MNC = torch.randn(8, 30, 3, generator=make_generator("noise"), dtype=torch.float64)
    predictions = replace(noisy, logits_MNC=0.3 * noisy.logits_MNC + noise_MNC)
    overfitted = Stacking(prior="zero", penalty=1e-4)
    combiner = SuperLearner(candidates=[overfitted, LogitAverage()]).combine(predictions)
    nll = [
        float(replace(predictions, logits_MNC=outputs(each, predictions)[None]).scores("nll"))
        for each in (overfitted, LogitAverage())
    ]
    assert nll[0] < nll[1]
    assert combiner.diagnostics["fusion/chosen"] == 1.0
    assert combiner.diagnostics["fusion/held_out_0_stacking"] > combiner.diagnostics["fusion/held_out_1_logit_average"]
    close(combiner(predictions.logits_MNC), outputs(LogitAverage(), predictions))


def test_the_chosen_candidate_is_fitted_to_all_examples() -> None:
    predictions = make_predictions("classification", examples=40)
    combiner = SuperLearner(candidates=[WeightedAverage()]).combine(fresh(predictions))
    assert torch.equal(combiner.weights, WeightedAverage().combine(predictions).weights)  # type: ignore[arg-type]


def test_the_first_of_equals_is_chosen() -> None:
    predictions = make_predictions("regression")
    combiner = SuperLearner(candidates=[Average(), LogitAverage()]).combine(predictions)
    assert combiner.diagnostics["fusion/chosen"] == 0.0


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("discrete", [True, False])
def test_the_default_candidates_are_those_of_the_kind(kind: TaskKind, discrete: bool) -> None:
    assert SuperLearner().kinds == {"classification", "multilabel", "regression"}
    predictions = make_predictions(kind)
    found = fuse(predictions.logits_MNC, method="super_learner", labels=predictions.truth, kind=kind, discrete=discrete)
    losses = predictions.scores("rmse" if kind == "regression" else "nll")
    fused = replace(predictions, logits_MNC=found.logits_NC[None])
    assert float(fused.scores("rmse" if kind == "regression" else "nll")) < float(losses.min())
    used = {name.partition("held_out_")[2] for name in found.diagnostics if "held_out" in name}
    assert ("4_stacking" in used) and ("3_least_squares" in used) == (kind == "regression")
    if not discrete:
        return
    held_out = {name: value for name, value in found.diagnostics.items() if "held_out" in name}
    assert len(held_out) == 5
    best = min(held_out, key=held_out.__getitem__)
    assert found.diagnostics["fusion/chosen"] == float(best.partition("held_out_")[2][0])


def test_tasks_of_several_kinds_have_candidates_of_their_own() -> None:
    tasks = [Task(name="digit", kind="classification", outputs=3), Task(name="size", kind="regression", outputs=1)]
    context = make_context(tasks)
    SuperLearner().check(context.development, describe(tasks, 4))
    fused = SuperLearner().apply(context)
    assert "fusion/digit/held_out_3_log_pool_optimal" in fused.diagnostics
    assert "fusion/size/held_out_3_least_squares" in fused.diagnostics


def test_given_candidates_decide_the_kinds() -> None:
    with pytest.raises(IncompatibleStrategyError, match="Found regression. Did you mean strategy.candidates that all"):
        fuse(
            torch.zeros(2, 8, 1),
            method="super_learner",
            candidates=["log_pool_optimal", "average"],
            labels=torch.zeros(8, 1),
            kind="regression",
        )


def test_apply_drops_members_and_has_honest_scores() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    strategy = SuperLearner(candidates=[WeightedAverage(), Median()], discrete=False)
    context = make_context([task])
    fused = strategy.apply(context)
    assert fused.network is not None and fused.combiners is not None
    with torch.no_grad():
        stored = fused.combiners["digit"](context.base_models.logits("validation")["digit"])
        found = fused.network(context.development.validation.inputs)["digit"]
    torch.testing.assert_close(found, stored, rtol=1e-5, atol=1e-5)
    assert fused.fit["digit"]["nll"] < fused.validation["digit"]["nll"]


def test_candidates_may_read_the_input() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    strategy = SuperLearner(candidates=[Gating(features="input"), Median()], discrete=False)
    assert strategy.reads == "input"
    predictions = make_predictions("classification", outputs=3, members=2)
    reading = replace(predictions, fit=Fit(CPU), features_NF=predictions.truth[:, None].float())
    mixture = strategy.combine(reading)
    shares = [mixture.diagnostics["fusion/share_0_gating"], mixture.diagnostics["fusion/share_1_median"]]
    assert shares[0] > 0 and mixture.reads == "input"
    with torch.no_grad():
        assert mixture(reading.logits_MNC, reading.features_NF).shape == (40, 3)
    with pytest.raises(HyperparameterError, match="should agree in `features`. Found backbone and input"):
        SuperLearner(candidates=[Gating(features="input"), Gating(features="backbone")])
    with pytest.raises(HyperparameterError, match="should agree in `fit_on`. Found out_of_fold and validation"):
        SuperLearner(candidates=[Stacking(fit_on="out_of_fold"), Average()])
    strategy.check(make_development([task]), describe([task], 2))


def test_candidates_are_checked() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    strategy = SuperLearner(candidates=[Average(), MEMBERS[0]])
    with pytest.raises(HyperparameterError, match=r"`candidates.1.weights.values` should have"):
        strategy.check(make_development([task]), describe([task], 2))
    with pytest.raises(HyperparameterError, match="a list of one or more strategies"):
        SuperLearner(candidates=[])
    with pytest.raises(HyperparameterError, match=re.escape("Found `candidates = 'median'`.")):
        SuperLearner(candidates=[Average(), "median"])  # type: ignore[list-item]
    with pytest.raises(HyperparameterError, match=r"should share a kind of task. Found .*least_squares for regression"):
        SuperLearner(candidates=[LeastSquares(), LogitAverage()])


def test_one_labelled_example_is_not_enough() -> None:
    predictions = make_predictions("classification")
    labels_N = torch.full((40,), -1)
    labels_N[0] = 1
    with pytest.raises(
        EmptyTaskError, match="super_learner has too few validation examples: .* at least 2 labelled ones. Found 1."
    ):
        SuperLearner(candidates=[Average()]).combine(replace(predictions, labels=labels_N))


def composed(tmp_path: Path, candidates: str) -> object:
    overrides = ["strategy=output_fusion/super_learner", candidates, f"paths.outputs={tmp_path}"]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return read(compose("config", overrides=overrides), tmp_path).strategy


def test_candidates_are_chosen_on_the_command_line(tmp_path: Path) -> None:
    package = "transfuse.strategy.output_fusion"
    found = composed(
        tmp_path,
        f"strategy.candidates=[{{_target_:{package}.Median}},{{_target_:{package}.WeightedAverage,space:logit,"
        "weights:{_target_:transfuse.strategy.weights.NllOptimal,shrink:0.5}}]",
    )
    assert found == SuperLearner(
        candidates=[Median(), WeightedAverage(space="logit", weights=NllOptimal(shrink=0.5))],
    )


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (
            "[{_target_:transfuse.strategy.output_fusion.Stacking,penality:1}]",
            "`strategy.candidates.0.penality` is no key",
        ),
        (
            "[{_target_:transfuse.strategy.output_fusion.Median},average]",
            "`strategy.candidates.1` should be an option of its group",
        ),
        ("[{_target_:transfuse.strategy.output_fusion.Stacking,penalty:-1.0}]", "penalty` should be > 0 and finite"),
        (
            "[{_target_:transfuse.strategy.output_fusion.Averag}]",
            "'transfuse.strategy.output_fusion.Averag': ModuleNotFoundError(",
        ),
        ("[]", "`strategy.candidates` should be a list of one or more strategies"),
    ],
)
def test_mistakes_in_candidates_are_named_by_their_key(tmp_path: Path, candidates: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        composed(tmp_path, f"strategy.candidates={candidates}")
