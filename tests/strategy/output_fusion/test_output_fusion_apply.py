"""What `OutputFusion.apply` derives for every method: honest scores, dropped members, checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.strategy.output_fusion.cases import CASES, Case
from tests.strategy.output_fusion.pool import describe, make_context, make_development, set_network
from transfuse.base_models.model import Description
from transfuse.metrics import scores
from transfuse.models.predict import predict
from transfuse.strategy.base import Context
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.output_fusion import Average, Fused, LogOpinionPool, SuperLearner, WeightedAverage, fuse
from transfuse.strategy.weights import Given, SoftmaxScore
from transfuse.types import HyperparameterError, IncompatibleStrategyError, PredictionError, Split, Task, TaskKind

DIGIT = Task(name="digit", kind="classification", outputs=3)
TAGS = Task(name="tags", kind="multilabel", outputs=4)
SIZE = Task(name="size", kind="regression", outputs=2)
TASK: dict[TaskKind, Task] = {task.kind: task for task in (DIGIT, TAGS, SIZE)}
CASES_AND_TASKS = [
    pytest.param(case, TASK[kind], id=f"{case.name}-{kind}") for case in CASES for kind in sorted(case.strategy.kinds)
]


@pytest.mark.parametrize(("case", "task"), CASES_AND_TASKS)
def test_network_and_combiners_over_all_members_agree(case: Case, task: Task) -> None:
    context = make_context([task])
    fused = case.strategy.apply(context)
    assert fused.network is not None
    assert fused.combiners is not None
    outputs = predict(fused.network, context.development.validation.inputs)[task.name]
    with torch.no_grad():
        stored = fused.combiners[task.name](context.base_models.logits("validation")[task.name])
    torch.testing.assert_close(outputs, stored, rtol=1e-5, atol=1e-5)
    assert sorted([*fused.members, *fused.diagnostics["fusion/dropped"]]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("case", "task"), CASES_AND_TASKS)
def test_scores_are_cross_fitted_exactly_where_something_was_fitted(case: Case, task: Task) -> None:
    fused = case.strategy.apply(make_context([task]))
    assert bool(fused.fit) == case.strategy.fitted
    assert set(fused.validation) == {task.name}


def test_validation_scores_come_from_fits_without_the_example() -> None:
    context = make_context([DIGIT])
    fused = WeightedAverage().apply(context)
    logits_MNC = context.base_models.logits("validation")["digit"]
    labels_N = context.development.validation.targets["digit"]
    folds_N = folds(labels_N, 60, 5, context.generator("cross_fit"))
    honest_NC = torch.empty(60, 3)
    for fold in range(5):
        rest, held = folds_N != fold, folds_N == fold
        fold_fit = fuse(logits_MNC[:, rest], method="weighted_average", labels=labels_N[rest])
        honest_NC[held] = fold_fit.combiner(logits_MNC[:, held])
    assert fused.validation["digit"] == pytest.approx(scores(DIGIT, honest_NC, labels_N))
    in_sample = fuse(logits_MNC, method="weighted_average", labels=labels_N)
    assert fused.fit["digit"] == pytest.approx(scores(DIGIT, in_sample.logits_NC, labels_N))
    assert fused.fit["digit"]["nll"] < fused.validation["digit"]["nll"]


def test_a_method_without_fit_has_the_plain_score() -> None:
    context = make_context([SIZE])
    fused = Average().apply(context)
    mean_NC = context.base_models.logits("validation")["size"].mean(0)
    assert fused.validation["size"] == pytest.approx(
        scores(SIZE, mean_NC, context.development.validation.targets["size"])
    )
    assert fused.fit == {}
    assert fused.looks == 0


def test_members_without_weight_are_left_out_of_the_network() -> None:
    context = make_context([DIGIT])
    fused = WeightedAverage(weights=Given(values=[0.0, 1.0, 0.0, 3.0])).apply(context)
    assert isinstance(fused.network, Fused)
    assert fused.members == (1, 3)
    assert len(fused.network.members) == 2
    assert fused.diagnostics["fusion/dropped"] == [0, 2]
    assert fused.weights == {"digit": [0.0, 0.25, 0.0, 0.75]}
    # p = p_1 / 4 + 3 p_3 / 4
    p_MNC = context.base_models.logits("validation")["digit"].softmax(-1)
    outputs_NC = predict(fused.network, context.development.validation.inputs)["digit"].exp()
    torch.testing.assert_close(outputs_NC, 0.25 * p_MNC[1] + 0.75 * p_MNC[3], rtol=0, atol=1e-6)


def test_a_member_that_one_task_listens_to_stays() -> None:
    context = make_context([DIGIT, TAGS], count=3)
    fused = WeightedAverage(weights=SoftmaxScore(temperature=1e-5)).apply(context)
    assert fused.weights is not None
    best = {task: max(range(3), key=values.__getitem__) for task, values in fused.weights.items()}
    assert set(fused.members) == set(best.values())
    assert set(fused.diagnostics["fusion/dropped"]) == {0, 1, 2} - set(best.values())


def test_diagnostics_of_several_tasks_carry_their_names() -> None:
    fused = WeightedAverage().apply(make_context([DIGIT, TAGS]))
    assert fused.diagnostics["fusion/digit/kkt_gap"] <= 1e-8
    assert fused.diagnostics["fusion/tags/kkt_gap"] <= 1e-8
    one = WeightedAverage().apply(make_context([DIGIT]))
    assert one.diagnostics["fusion/kkt_gap"] <= 1e-8


def test_the_network_shares_no_storage_with_members_or_combiners() -> None:
    context = make_context([DIGIT], count=2)
    fused = Average().apply(context)
    assert fused.network is not None
    assert fused.combiners is not None
    theirs = {tensor.data_ptr() for member in context.base_models for tensor in member.state.values()}
    theirs |= {tensor.data_ptr() for tensor in fused.combiners["digit"].state_dict().values()}
    assert theirs.isdisjoint(tensor.data_ptr() for tensor in fused.network.state_dict().values())


def test_the_same_run_gives_the_same_scores() -> None:
    first, second = (WeightedAverage().apply(make_context([DIGIT], seed=3)) for _ in range(2))
    assert first.validation == second.validation


def test_predictions_that_are_not_finite_name_member_split_and_example() -> None:
    context = make_context([DIGIT], count=3)
    network = context.base_models[1].network()
    set_network(context, 1, {key: torch.full_like(value, torch.nan) for key, value in network.state_dict().items()})
    with pytest.raises(PredictionError, match=r"Member 1 predicts NaN or infinity on validation.* id 1000"):
        Average().apply(context)


def test_fewer_examples_than_folds() -> None:
    context = make_context([DIGIT], development=make_development([DIGIT], examples=4))
    with pytest.raises(HyperparameterError, match="Found `cross_fit = 5` and 4 examples"):
        WeightedAverage().apply(context)


def test_a_member_that_occurs_twice_is_told_in_the_record() -> None:
    context = make_context([DIGIT])
    assert "fusion/warning" not in WeightedAverage().apply(context).diagnostics
    first, second, third, _ = context.base_models.description.members
    context.base_models.description = replace(
        context.base_models.description, members=(first, second, third, replace(first, name="again"))
    )
    warning = WeightedAverage().apply(context).diagnostics["fusion/warning"]
    assert warning == "Members given-0, again are not all different: their weights are not identifiable."


def test_tasks_of_several_kinds_are_refused_with_what_fits_them_all() -> None:
    development, pool = make_development([DIGIT, SIZE]), describe([DIGIT, SIZE], 2)
    for strategy, method in ((WeightedAverage(), "super_learner"), (LogOpinionPool(), "average")):
        with pytest.raises(IncompatibleStrategyError, match=f"Did you mean output_fusion/{method}, which fits them"):
            strategy.check(development, pool)
    for fitting in (SuperLearner(), Average()):
        fitting.check(development, pool)


def test_an_empty_pool() -> None:
    with pytest.raises(IncompatibleStrategyError, match=r"`base_models` is empty\. Add at least one\."):
        Average().check(make_development([DIGIT]), Description(recipe="seeds", members=()))


def test_members_for_one_task_each_are_refused() -> None:
    with pytest.raises(IncompatibleStrategyError, match="needs base models that predict every task"):
        Average().check(make_development([DIGIT, TAGS]), describe([DIGIT], 2))


def test_a_pool_of_source_models_is_refused() -> None:
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean base_models=source_and_target\?"):
        Average().check(make_development([DIGIT]), describe([DIGIT], 1, trained_on="source"))


@pytest.mark.parametrize("examples", [0, 6])
def test_a_fitted_method_needs_validation_labels(examples: int) -> None:
    development = make_development([DIGIT])
    unlabelled = Split(
        inputs=torch.zeros(examples, 5),
        targets={"digit": torch.full((examples,), -1)},
        ids=torch.arange(examples),
    )
    development = replace(development, validation=unlabelled)
    with pytest.raises(IncompatibleStrategyError, match=r"needs validation labels.*data\.validation_fraction > 0"):
        WeightedAverage().check(development, describe([DIGIT], 2))
    Average().check(development, describe([DIGIT], 2))


def test_without_validation_examples_a_method_without_fit_works() -> None:
    development = make_development([DIGIT])
    empty = development.validation.select(torch.zeros(60, dtype=torch.bool))
    context: Context = make_context([DIGIT], development=replace(development, validation=empty))
    fused = Average().apply(context)
    assert fused.validation == {"digit": {}}
    assert fused.members == (0, 1, 2, 3)
