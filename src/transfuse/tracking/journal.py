"""What one run tells its tracker, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfuse.base_models import Store, Trained
from transfuse.metrics import named
from transfuse.strategy.base import FusedModel
from transfuse.tracking.base import Tracker
from transfuse.tracking.record import RunRecord
from transfuse.types import Problem

_FILES = ("record.json", "predictions.safetensors", "analysis", ".hydra", "transfuse.log")


@dataclass(kw_only=True)
class Journal:
    """The run's entries in MLflow: one for the job, one for each base model that it trains.

    Attributes:
        tracker: where entries go.
        folder: of the run; its files become artifacts.
        store: where base models are kept.
    """

    tracker: Tracker
    folder: Path
    store: Store
    _run: str = field(default="", init=False)
    _tags: Mapping[str, str] = field(default_factory=dict, init=False)

    def start(
        self, config: Mapping[str, Any], tags: Mapping[str, str], problem: Problem, *, parent: str | None, test: str
    ) -> None:
        """Opens the job's entry: config, tags, data.

        Args:
            config: the resolved config.
            tags: by their full names.
            problem: the data.
            parent: id of the sweep's entry, or None.
            test: fingerprint of the test split.
        """
        self._tags = tags
        name = f"{tags['transfuse.strategy'].rpartition('/')[2]} seed={tags['transfuse.seed']}"
        self._run = self.tracker.start("job", name, tags=tags, params=config, parent=parent)
        development = problem.development
        sizes = {"train": len(development.train), "validation": len(development.validation)}
        self.tracker.dataset(self._run, development.name, development.fingerprint, "development", sizes)
        self.tracker.dataset(self._run, development.name, test, "test", {"test": len(problem.test)})

    def base_model(self, news: Trained) -> None:
        """An entry of its own for a training that this run did, linked by its members' keys and by the job's id."""
        recipe, members = news.recipe, news.members
        tags = {
            "transfuse.key": ",".join(member.description.key for member in members),
            "transfuse.trained_by": self._run,
            "transfuse.data": self._tags["transfuse.data"],
            "transfuse.model": recipe.architecture.name,
            "transfuse.seed": self._tags["transfuse.seed"],
        }
        run = self.tracker.start("base_model", recipe.name, tags=tags, params=recipe.canonical())
        self.tracker.curves(run, news.result.history)
        self.tracker.metrics(run, {"cost/seconds": news.result.seconds})
        for member in members:
            prefix = "validation" if len(members) == 1 else f"member/{member.description.name}/validation"
            self.tracker.metrics(run, named(prefix, member.validation))
            weights = self.store.weights_file(member.description.key)
            self.tracker.model(run, member.description.name, weights, {"model": dict(member.architecture.recipe)})
        self.tracker.finish(run, "finished")

    def progress(self, name: str, scores: Mapping[str, float], cost: Mapping[str, float]) -> None:
        """Scores and cost of one arm of several that a strategy tries, so far."""
        values = {**scores, **{f"cost/{key}": value for key, value in cost.items()}}
        self.tracker.metrics(self._run, {f"arm/{name}/{key}": value for key, value in values.items()})

    def finish(self, record: RunRecord, fused: FusedModel, analysis: Mapping[str, float]) -> None:
        """Final metrics, costs, curves, files and the fused model.

        Args:
            record: of the run.
            fused: what it made.
            analysis: numbers that are no metrics of the record, such as `analysis/mce`.
        """
        self.tracker.curves(self._run, fused.history)
        costs = {f"cost/{name}": value for name, value in record.cost.items()}
        self.tracker.metrics(self._run, {**record.metrics, **costs, **analysis})
        keys = ",".join(str(member["key"]) for member in record.base_models)
        self.tracker.tags(self._run, {"transfuse.base_models": keys})
        self.tracker.artifacts(self._run, [path for name in _FILES if (path := self.folder / name).exists()])
        weights = self.folder / "fused" / "model.safetensors"
        if weights.exists():
            config = {"strategy": record.config.get("strategy"), "model": record.config.get("model")}
            self.tracker.model(self._run, "fused", weights, config)
        self.tracker.finish(self._run, "finished")

    def fail(self, error: str) -> None:
        """Closes the job's entry with the reason."""
        self.tracker.tags(self._run, {"transfuse.error": error})
        self.tracker.finish(self._run, "failed")

    @property
    def run_id(self) -> str:
        """Id of the job's entry; empty without one."""
        return self._run
