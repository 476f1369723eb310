"""What we add to training and to a job: `python benchmarks/overhead.py`.

One thread, CPU time of the process, both sides in turn, medians over rounds. Each side trains the same network on the
same batches with Adam and validates once an epoch; ours counts whole: building the Trainer, history, best weights.
The bare loop is what one would write: `torch.optim.Adam(network.parameters())`. The table also shows it with
`fused=True`, which our side uses.

The fixed cost of a job is measured on base models that are in the store already and on an existing MLflow database, in
a process that has imported everything: composing, checking, reading the store, fusing, evaluating, writing, tracking.
"""

from __future__ import annotations

import copy
import platform
import statistics
import sys
import time
import unittest.mock
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from transfuse.cli import main as transfuse
from transfuse.tracking.record import versions
from transfuse.training import BaseModule, Devices, Fit, Training
from transfuse.types import Split, Task

ROUNDS = 7
TASK = Task(name="class", kind="classification", outputs=10)


class OneHead(nn.Module):
    """A body whose outputs are the logits of the only task."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {TASK.name: self.body(inputs)}


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    network: nn.Module
    train: Split
    validation: Split
    epochs: int
    limit: float


def mlp() -> Case:
    body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return Case(
        name="step_mlp",
        network=OneHead(body),
        train=examples(1088, (64,)),
        validation=examples(352, (64,)),
        epochs=30,
        limit=2.0,
    )


def cnn() -> Case:
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )
    return Case(
        name="step_cnn",
        network=OneHead(body),
        train=examples(1024, (1, 28, 28)),
        validation=examples(256, (1, 28, 28)),
        epochs=6,
        limit=1.4,
    )


def examples(size: int, shape: tuple[int, ...]) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *shape, generator=generator)
    targets = torch.randint(10, (size,), generator=generator)
    return Split(inputs=inputs, targets={TASK.name: targets}, ids=torch.arange(size))


def train_bare(case: Case, *, fused: bool) -> None:
    network = copy.deepcopy(case.network)
    inputs, targets = case.train.inputs, case.train.targets[TASK.name]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=fused)
    generator = torch.Generator().manual_seed(0)
    for _ in range(case.epochs):
        network.train()
        for at in torch.randperm(len(inputs), generator=generator).split(32):
            loss = cross_entropy(network(inputs[at])[TASK.name], targets[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            cross_entropy(network(case.validation.inputs)[TASK.name], case.validation.targets[TASK.name]).item()


def train_ours(case: Case) -> None:
    settings = Training(epochs=case.epochs)
    module = BaseModule(copy.deepcopy(case.network), (TASK,), settings)
    fit = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    fit(module, case.train, case.validation, settings=settings, seed=0, name=case.name)


def measure(sides: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median CPU seconds of each side, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(ROUNDS + 1):
        for name, side in sides.items():
            started = time.process_time()
            side()
            if round_number > 0:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def training_step(case: Case) -> float:
    """Prints the row of `case`; returns ours over bare."""
    steps = case.epochs * -(-len(case.train) // 32)
    medians = measure(
        {
            "bare": lambda: train_bare(case, fused=False),
            "fused": lambda: train_bare(case, fused=True),
            "ours": lambda: train_ours(case),
        }
    )
    bare, fused, ours = (1000 * medians[name] / steps for name in ("bare", "fused", "ours"))
    print(
        f"{case.name:<10} {steps:>6} {bare:>9.3f} {fused:>11.3f} {ours:>9.3f} {ours / bare:>9.2f} {ours / fused:>12.2f}"
    )
    return ours / bare


STRATEGIES = (
    "baseline/best_single",
    "baseline/mean_single",
    "output_fusion/average",
    "output_fusion/weighted_average",
    "weight_fusion/uniform_soup",
    "weight_fusion/greedy_soup",
)


def command(*arguments: str) -> float:
    """CPU seconds of the command `transfuse` in this process; what it prints is swallowed."""
    started = time.process_time()
    with unittest.mock.patch.object(sys, "argv", ["transfuse", *arguments]), redirect_stdout(StringIO()):
        try:
            transfuse()
        except SystemExit as end:
            assert not end.code, f"transfuse {' '.join(arguments)} failed"
    return time.process_time() - started


def job() -> tuple[float, float]:
    """Prints the rows of a run of its own and of one more job of a sweep; returns their CPU seconds."""
    with TemporaryDirectory() as folder:
        given = [f"paths.outputs={folder}", "training.epochs=1", "trainer.progress=false", "hydra.verbose=false"]
        command("-m", f"strategy={','.join(STRATEGIES)}", *given)  # imports, trains, fills store and database
        single = statistics.median(command(f"strategy={name}", *given) for name in STRATEGIES)
        few = statistics.median(command("-m", f"strategy={STRATEGIES[2]}", *given) for _ in range(3))
        many = statistics.median(command("-m", f"strategy={','.join(STRATEGIES)}", *given) for _ in range(3))
    further = (many - few) / (len(STRATEGIES) - 1)
    print(f"\n{'a run of its own, CPU seconds':<45} {single:>6.2f}")
    print(f"{'each further job of a sweep, CPU seconds':<45} {further:>6.2f}")
    return single, further


def main() -> None:
    torch.set_num_threads(1)
    print(f"hardware  {platform.machine()}, {platform.processor() or 'unknown processor'}, CPU, 1 thread")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(
        f"repeats   {ROUNDS} rounds in turn, medians; CPU ms a step, batch 32, validation once an epoch on both sides\n"
    )
    print(f"{'case':<10} {'steps':>6} {'bare':>9} {'bare fused':>11} {'ours':>9} {'/ bare':>9} {'/ bare fused':>12}")
    cases = (mlp(), cnn())
    results = {case.name: (training_step(case), case.limit) for case in cases}
    single, further = job()
    results |= {"job_cpu_seconds": (single, 1.5), "further_job_cpu_seconds": (further, 0.5)}
    print()
    for name, (ratio, limit) in results.items():
        print(f"ratio {name} {ratio:.3f}")
        print(f"limit {name} {limit}")


if __name__ == "__main__":
    main()
