"""What `base_models.train=together` saves: `python benchmarks/base_models.py`.

Ten perceptrons 64-64-64-10, batch 32, Adam: `together` over `one_by_one`, each with all that a training costs (Trainer,
batches, validation once an epoch, best weights). One thread, CPU time of the process, both sides in turn, minimum of
the rounds. It depends on how small the networks are: the other rows show where it stops paying, and have no limit.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from transfuse.models import build_cnn, build_mlp
from transfuse.tracking.record import versions
from transfuse.training import BaseModule, Devices, Fit, TogetherModule, Training
from transfuse.types import Split, Task

ROUNDS = 4
MEMBERS = 10
TASK = Task(name="class", kind="classification", outputs=10)
FIT = Fit(Devices(accelerator="cpu", devices=1, progress=False))


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int
    epochs: int
    limit: float | None = None


CASES = (
    Case(
        name="together_mlp",
        make=lambda: build_mlp(input_shape=(64,), tasks=(TASK,), widths=(64, 64)),
        shape=(64,),
        batch_size=32,
        epochs=4,
        limit=1 / 1.8,
    ),
    Case(
        name="together_mlp_large_batch",
        make=lambda: build_mlp(input_shape=(64,), tasks=(TASK,), widths=(64, 64)),
        shape=(64,),
        batch_size=128,
        epochs=8,
    ),
    Case(
        name="together_mlp_wide",
        make=lambda: build_mlp(input_shape=(784,), tasks=(TASK,), widths=(128, 128)),
        shape=(784,),
        batch_size=32,
        epochs=2,
    ),
    Case(
        name="together_cnn",
        make=lambda: build_cnn(input_shape=(1, 8, 8), tasks=(TASK,), channels=(8, 16), batch_norm=False),
        shape=(1, 8, 8),
        batch_size=32,
        epochs=2,
    ),
)


def examples(size: int, shape: tuple[int, ...]) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *shape, generator=generator)
    targets = torch.randint(10, (size,), generator=generator)
    return Split(inputs=inputs, targets={TASK.name: targets}, ids=torch.arange(size))


def one_by_one(case: Case, train: Split, validation: Split) -> None:
    settings = Training(epochs=case.epochs, batch_size=case.batch_size)
    for seed in range(MEMBERS):
        module = BaseModule(case.make(), (TASK,), settings)
        FIT(module, train, validation, settings=settings, seed=seed, name=case.name)


def together(case: Case, train: Split, validation: Split) -> None:
    settings = Training(epochs=case.epochs, batch_size=case.batch_size)
    module = TogetherModule([case.make() for _ in range(MEMBERS)], (TASK,), settings, range(MEMBERS))
    FIT(module, train, validation, settings=settings, seed=0, name=case.name)


def measure(case: Case) -> float:
    """Prints the row of `case`; returns together over one by one."""
    train, validation = examples(1088, case.shape), examples(352, case.shape)
    seconds: dict[str, list[float]] = {"one by one": [], "together": []}
    for round_number in range(ROUNDS + 1):
        for name, side in (("one by one", one_by_one), ("together", together)):
            started = time.process_time()
            side(case, train, validation)
            if round_number > 0:
                seconds[name].append(time.process_time() - started)
    alone, joint = min(seconds["one by one"]), min(seconds["together"])
    print(f"{case.name:<26} {case.batch_size:>6} {alone:>11.2f} {joint:>9.2f} {alone / joint:>9.2f}")
    return joint / alone


def main() -> None:
    torch.set_num_threads(1)
    print(f"hardware  {platform.machine()}, {platform.processor() or 'unknown processor'}, CPU, 1 thread")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(f"repeats   {ROUNDS} rounds in turn, minimum; CPU seconds of a pool of {MEMBERS}\n")
    print(f"{'case':<26} {'batch':>6} {'one by one':>11} {'together':>9} {'quicker':>9}")
    ratios = {case: measure(case) for case in CASES}
    print()
    for case, ratio in ratios.items():
        print(f"ratio {case.name} {ratio:.3f}")
        if case.limit is not None:
            print(f"limit {case.name} {case.limit:.3f}")


if __name__ == "__main__":
    main()
