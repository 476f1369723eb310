"""One run: data -> problem -> base models -> strategy -> fused model -> evaluation -> record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from transfuse.base_models import BaseModelRecipe, Pool, Setting, Store
from transfuse.base_models.model import training_seconds
from transfuse.conformity import under
from transfuse.data.dataset import Dataset
from transfuse.data.splits import fingerprint
from transfuse.evaluation import (
    Analysis,
    Evaluation,
    Result,
    analyse,
    evaluate,
    write_balance_table,
    write_normalized,
    write_predictions,
    write_tables,
    write_weight_tables,
)
from transfuse.metrics import named
from transfuse.models.architecture import Architecture
from transfuse.strategy.base import Context, FusedModel, Strategy
from transfuse.tracking import RunRecord, Tracker, versions
from transfuse.tracking.hardware import hardware
from transfuse.tracking.journal import Journal
from transfuse.training.fit import Fit
from transfuse.training.settings import Devices, Training
from transfuse.types import HyperparameterError, Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A composed and checked config.

    Attributes:
        folder: of this run; absolute.
        data_folder: where data files lie.
        store: folder of the base models.
        refresh_before: with `base_models.refresh`, members older than this are trained anew.
        parent: opens, or finds, the sweep's entry in MLflow and returns its id; None for a run of its own.
        plain: the resolved config as plain values.
    """

    data: Dataset
    architecture: Architecture
    base_models: BaseModelRecipe
    strategy: Strategy
    training: Training
    devices: Devices
    evaluation: Evaluation
    tracker: Tracker
    seed: int
    folder: Path
    data_folder: Path
    store: Path
    refresh_before: float
    parent: Callable[[], str] | None
    plain: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run whose parts fit together: data read, strategy checked; nothing written and nothing trained yet."""

    run: Run
    problem: Problem
    pool: Pool
    journal: Journal
    selection_metric: str


def prepare(run: Run) -> Prepared:
    """Reads the data and checks that model, base models and strategy fit them; every bad input is told here."""
    with under("data"):
        problem = run.data.build(seed=run.seed, folder=run.data_folder)
    development = problem.development
    with under("evaluation"):
        selection_metric = run.evaluation.metric_for(development.tasks)
    fit = Fit(run.devices, checkpoints=run.store / "training")
    if run.training.batch_size % fit.world_size:
        raise HyperparameterError(
            f"`training.batch_size` should be a multiple of the number of devices ({fit.world_size}). "
            f"Found `training.batch_size = {run.training.batch_size}`."
        )
    setting = Setting(
        development=development,
        architecture=run.architecture,
        training=run.training,
        seed=run.seed,
        precision=run.devices.precision,
        world_size=fit.world_size,
        fetch=run.tracker.fetch,
    )
    members = run.base_models.members(setting)
    store = Store(run.store)
    journal = Journal(tracker=run.tracker, folder=run.folder, store=store)
    pool = Pool(
        name=run.base_models.name,
        members=members,
        development=development,
        store=store,
        fit=fit,
        refresh_before=run.refresh_before,
        on_trained=journal.base_model,
        lay_out=lambda rest: run.base_models.members(replace(setting, development=rest)),
    )
    if len(development.validation) < run.evaluation.cross_fit:
        raise HyperparameterError(
            f"`evaluation.cross_fit` should be at most the number of validation examples. "
            f"Found `evaluation.cross_fit = {run.evaluation.cross_fit}` and {len(development.validation)} examples."
        )
    members.recipes[0].build()  # a model that does not fit the data is told here
    description = pool.description
    with under("strategy"):
        run.strategy.check(development, description)
    return Prepared(run=run, problem=problem, pool=pool, journal=journal, selection_metric=selection_metric)


def run(settings: Run) -> RunRecord:
    """One run from its config to its record."""
    return execute(prepare(settings))


def execute(prepared: Prepared) -> RunRecord:
    """Carries a run out; one that fails leaves a record that says why, then the error goes on."""
    try:
        return _executed(prepared)
    except (Exception, KeyboardInterrupt) as error:
        run = prepared.run
        names = {"strategy": run.strategy.name, "data": run.data.name, "model": run.architecture.name}
        record = failed_record(error, config=run.plain, **names)
        record = replace(record, **known(prepared))
        leave(record, prepared.run.folder)
        prepared.journal.fail(str(record.error))
        raise


def _executed(prepared: Prepared) -> RunRecord:
    """Trains what is missing, fuses or transfers, evaluates once on the test split, writes everything."""
    run, problem, pool = prepared.run, prepared.problem, prepared.pool
    began = time.perf_counter()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    test = fingerprint(problem.development.tasks, problem.test)
    prepared.journal.start(
        run.plain, tags(run), problem, parent=None if run.parent is None else run.parent(), test=test
    )
    for note in problem.notes:
        log.info(note)

    fusing = time.perf_counter()
    fused = run.strategy.apply(context(prepared))
    fuse_seconds = time.perf_counter() - fusing - pool.seconds
    result = evaluate(fused, problem, pool, settings=run.evaluation)
    members = [member.name for member in pool.description.members]
    analyses = analyse(result, problem.development.tasks, members=members)

    record = summarize(prepared, fused, result, fuse_seconds=fuse_seconds)
    save(run.folder, fused, result)
    show(run, analyses, fused, members)
    write_normalized(run.folder / "analysis", problem.development.tasks, fused.validation, pool.used())
    record = replace(record, started=started, seconds=time.perf_counter() - began)
    record.write(run.folder)
    numbers = named("analysis", {analysis.task.name: analysis.numbers for analysis in analyses})
    prepared.journal.finish(record, fused, numbers)
    pool.fit.checkpoints.remove_all()
    return record


def context(prepared: Prepared) -> Context:
    """What the strategy may use: no test data."""
    run = prepared.run
    return Context(
        development=prepared.problem.development,
        base_models=prepared.pool,
        architecture=run.architecture,
        training=run.training,
        fit=prepared.pool.fit,
        seed=run.seed,
        selection_metric=prepared.selection_metric,
        cross_fit=run.evaluation.cross_fit,
        report=prepared.journal.progress,
    )


def summarize(prepared: Prepared, fused: FusedModel, result: Result, *, fuse_seconds: float) -> RunRecord:
    """The record of a finished run."""
    run, used = prepared.run, prepared.pool.used()
    metrics = named("test", result.test) | named("validation", fused.validation) | named("fit", fused.fit)
    base_seconds = training_seconds(used)
    return RunRecord(
        config=run.plain,
        seed=run.seed,
        family=run.strategy.family,
        strategy=run.strategy.name,
        data=run.data.name,
        model=run.architecture.name,
        metrics=metrics,
        cost={"base_seconds": base_seconds, "fuse_seconds": fuse_seconds, **result.cost},
        fused={"weights": fused.weights, "diagnostics": fused.diagnostics, "members": list(fused.members)},
        budget={
            "epochs": run.training.epochs,
            "steps": run.training.steps,
            "steps_taken": fused.steps,
            "trials": 1,
            "validation_looks": fused.looks,
        },
        versions=versions(),
        hardware=hardware(),
        **known(prepared),
    )


def known(prepared: Prepared) -> dict[str, Any]:
    """What the record says of a run however it ends: problem, data, base models, tracking."""
    problem = prepared.problem
    tasks = problem.development.tasks
    return {
        "problem": {
            "kind": problem.development.kind,
            "tasks": [{"name": task.name, "kind": task.kind, "outputs": task.outputs} for task in tasks],
            "selection_metric": prepared.selection_metric,
        },
        "base_models": tuple(
            {
                "key": member.description.key,
                "name": member.description.name,
                "validation": member.validation,
                "trained_here": member.trained_here,
            }
            for member in prepared.pool.used()
        ),
        "fingerprints": {
            "development": problem.development.fingerprint,
            "test": fingerprint(tasks, problem.test),
        },
        "tracking": {"run_id": prepared.journal.run_id, "failure": prepared.run.tracker.failure},
    }


def save(folder: Path, fused: FusedModel, result: Result) -> None:
    """Writes `predictions.safetensors` and, where there is a fused network, `fused/model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.safetensors", result)
    if fused.network is not None:
        (folder / "fused").mkdir(exist_ok=True)
        state = {key: value.detach().cpu().clone().contiguous() for key, value in fused.network.state_dict().items()}
        save_file(state, folder / "fused" / "model.safetensors")


def show(run: Run, analyses: Sequence[Analysis], fused: FusedModel, members: Sequence[str]) -> None:
    """Writes the folder `analysis/`: tables, `summary.json` and, where the run draws, figures."""
    folder = run.folder / "analysis"
    write_tables(folder, analyses)
    write_weight_tables(folder, fused.diagnostics, members)
    write_balance_table(folder, fused.history)
    if run.evaluation.draws(alone=run.parent is None):
        from transfuse.report.balance_figures import write_balance_figures  # loads what only figures and reports need
        from transfuse.report.run_figures import write_figures
        from transfuse.report.weight_figures import write_weight_figures

        write_figures(folder, analyses)
        write_weight_figures(folder, fused.diagnostics, members)
        write_balance_figures(folder, fused.history)


def failed_record(
    error: BaseException, *, config: Mapping[str, Any], strategy: str, data: str, model: str
) -> RunRecord:
    """The record of a run that an error ended."""
    return RunRecord(
        status="failed",
        error=f"{type(error).__name__}: {error}".removesuffix(": "),
        config=config,
        seed=config.get("seed", 0),
        family=strategy.partition("/")[0],
        strategy=strategy,
        data=data,
        model=model,
        versions=versions(),
        hardware=hardware(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def leave(record: RunRecord, folder: Path) -> None:
    """Writes the record of a failure where that can be done; the failure itself is never hidden by it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.write(folder)
    except OSError as error:
        log.error("The record of the failure (%s) cannot be written: %s", record.error, error)


def tags(run: Run) -> dict[str, str]:
    """What runs are found by in MLflow."""
    return {
        "transfuse.family": run.strategy.family,
        "transfuse.strategy": run.strategy.name,
        "transfuse.data": run.data.name,
        "transfuse.model": run.architecture.name,
        "transfuse.seed": str(run.seed),
    }
