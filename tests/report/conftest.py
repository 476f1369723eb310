"""Sweep folders as real runs leave them: records, and predictions whose scores the records hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from transfuse.metrics import named, scores
from transfuse.tracking.record import RunRecord
from transfuse.types import Task

TASK = Task(name="y", kind="classification", outputs=3)


@dataclass
class SweepBuilder:
    """Writes job after job into one sweep folder."""

    folder: Path
    num_examples: int = 60
    count: int = field(default=0)

    def job(self) -> Path:
        job = self.folder / str(self.count)
        job.mkdir(parents=True)
        self.count += 1
        return job

    def record(self, record: RunRecord) -> Path:
        job = self.job()
        record.write(job)
        return job

    def run(
        self,
        strategy: str,
        *,
        seed: int = 0,
        skill: float = 1.0,
        members: int = 0,
        data: str = "digits",
        shared_test: bool = True,
        fields: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """A finished classification run; `skill` is how far its logits lean to the label."""
        test_seed = 7 if shared_test else 7 + seed
        labels_N = torch.randint(3, (self.num_examples,), generator=torch.Generator().manual_seed(test_seed))
        # strategies of one seed share most of their noise, as strategies over the same base models do
        noise = torch.randn(self.num_examples, 3, generator=torch.Generator().manual_seed(1000 + seed))
        own_seed = 5000 + 100 * seed + sum(map(ord, strategy + str(fields) + str(config)))
        own = torch.randn(max(members, 1), self.num_examples, 3, generator=torch.Generator().manual_seed(own_seed))
        outputs_MNC = skill * torch.nn.functional.one_hot(labels_N, 3) + noise + 0.2 * own
        outputs = outputs_MNC if members else outputs_MNC[0]
        member_scores = [scores(TASK, outputs_NC, labels_N) for outputs_NC in outputs_MNC]
        means = {name: sum(s[name] for s in member_scores) / len(member_scores) for name in member_scores[0]}
        record = RunRecord(
            seed=seed,
            strategy=strategy,
            family=strategy.partition("/")[0],
            data=data,
            model="mlp",
            problem={
                "kind": "single_task",
                "tasks": [{"name": "y", "kind": "classification"}],
                "selection_metric": "nll",
            },
            config={"seed": seed, "strategy": {"_target_": f"pkg.{strategy}", **(fields or {})}, **(config or {})},
            metrics=named("test", {"y": means}),
            cost={"base_seconds": 12.345, "fuse_seconds": 0.4567, "parameters": 109386, "latency_ms": 0.1234},
            budget={"epochs": 30, "steps": None, "steps_taken": 570, "trials": 1, "validation_looks": 5},
            base_models=tuple({"key": f"k{seed}{m}", "name": f"seeds-{m}", "trained_here": False} for m in range(2)),
            fingerprints={"development": f"d{seed}", "test": "t" if shared_test else f"t{seed}"},
        )
        job = self.record(replace(record, **changes))
        tensors = {"y/outputs": outputs.contiguous(), "y/labels": labels_N, "ids": torch.arange(self.num_examples)}
        save_file(tensors, job / "predictions.safetensors")
        return job

    def multi_task(
        self,
        strategy: str,
        *,
        seed: int = 0,
        accuracy: float,
        rmse: float,
        config: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """A finished run on a classification task `a` and a regression task `b`."""
        record = RunRecord(
            seed=seed,
            strategy=strategy,
            family=strategy.partition("/")[0],
            data="two",
            model="mlp",
            problem={
                "kind": "multi_task",
                "tasks": [{"name": "a", "kind": "classification"}, {"name": "b", "kind": "regression"}],
                "selection_metric": "nll",
            },
            config={"seed": seed, "training": {"epochs": 30, "batch_size": 32}, **(config or {})},
            metrics={"test/a/accuracy": accuracy, "test/a/nll": 1 - accuracy, "test/b/rmse": rmse, "test/b/mae": rmse},
            fingerprints={"development": "d", "test": "t"},
        )
        return self.record(replace(record, **changes))


@pytest.fixture
def sweep(tmp_path: Path) -> SweepBuilder:
    """A sweep in `<tmp_path>/outputs/sweeps/<date>/<time>`."""
    return SweepBuilder(folder=tmp_path / "outputs" / "sweeps" / "2026-01-02" / "10-00-00-000001")


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str, str], SweepBuilder]:
    """Makes further sweeps, by date and time."""
    return lambda date, time: SweepBuilder(folder=tmp_path / "outputs" / "sweeps" / date / time)
