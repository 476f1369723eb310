"""A multi-task step against torchjd's and against the plain sum: `python benchmarks/multi_task.py`.

One thread, CPU time of the process, all sides in turn, medians over rounds. Each side trains the same network with SGD
on batches of 64; a step's time is the difference of a long and a short training over the difference of their steps, so
that starting and validating do not count. torchjd's side is the bare loop that its documentation shows: `mtl_backward`,
`jac_to_grad`, the optimizer; once with its default chunks and once with one backward pass a task
(`parallel_chunk_size=1`). It needs `pip install 'transfuse[mtl]' quadprog qpsolvers cvxpy clarabel`. What cannot be
made is said, and our rule is compared with torchjd's step that only averages the rows (`..._to_better_mean`): its time
is a lower bound of the missing one's, so that the ratio is an upper bound; it has no limit and is not in the median.
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from transfuse.models import build_cnn, build_mlp
from transfuse.strategy.multi_task import MGDA, CAGrad, JointSum, PCGrad, UPGrad
from transfuse.strategy.multi_task.base import MultiTask
from transfuse.tracking.record import versions
from transfuse.training import BaseModule, Devices, Fit, Training
from transfuse.training.multi_task import MultiTaskModule
from transfuse.types import Split, Task

ROUNDS = 3
BATCH = 64
SHORT = 8  # steps
LONG = {"mlp": 104, "cnn": 24}
COUNTS = (2, 5, 10)
RULES: dict[str, MultiTask] = {"upgrad": UPGrad(), "pcgrad": PCGrad(), "cagrad": CAGrad(), "mgda": MGDA()}
FEATURE_LIMIT = {"mlp": 2.0, "cnn": 1.6}


@cache
def tasks(count: int) -> tuple[Task, ...]:
    return tuple(Task(name=f"task_{index}", kind="classification", outputs=10) for index in range(count))


@cache
def network(kind: str, count: int) -> nn.Module:
    torch.manual_seed(0)
    if kind == "mlp":
        return build_mlp(input_shape=(64,), tasks=tasks(count), widths=(256, 256, 128))
    return build_cnn(input_shape=(1, 28, 28), tasks=tasks(count), channels=(16, 32), features=64)


@cache
def examples(kind: str, count: int, size: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (64,) if kind == "mlp" else (1, 28, 28)
    return Split(
        inputs=torch.randn(size, *shape, generator=generator),
        targets={task.name: torch.randint(10, (size,), generator=generator) for task in tasks(count)},
        ids=torch.arange(size),
    )


def ours(kind: str, count: int, strategy: MultiTask | None, steps: int) -> None:
    """A training by Lightning; without a strategy by the plain module, which sums the losses."""
    settings = Training(epochs=1, batch_size=BATCH, optimizer="sgd", lr=0.01, schedule="constant", keep="last")
    own = copy.deepcopy(network(kind, count))
    if strategy is None:
        module: BaseModule | MultiTaskModule = BaseModule(own, tasks(count), settings)
    else:
        module = MultiTaskModule(own, tasks(count), settings, strategy)  # type: ignore[arg-type]
    fit = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    train, validation = examples(kind, count, BATCH * steps), examples(kind, count, BATCH)
    fit(module, train, validation, settings=settings, seed=0, name=kind)


def theirs(kind: str, count: int, aggregator: Callable[[Tensor], Tensor], chunk: int | None, steps: int) -> None:
    """Torchjd's loop."""
    from torchjd.autojac import jac_to_grad, mtl_backward

    own = copy.deepcopy(network(kind, count)).train()
    train = examples(kind, count, BATCH * steps)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.01, momentum=0.9)
    shared: Iterable[Tensor] = list(own.backbone.parameters())  # type: ignore[union-attr]
    for at in torch.randperm(len(train)).split(BATCH):
        features = own.backbone(train.inputs[at])  # type: ignore[operator]
        losses = [
            cross_entropy(head(features), train.targets[name][at])
            for name, head in own.heads.items()  # type: ignore[union-attr, operator]
        ]
        mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)  # type: ignore[arg-type]
        optimizer.step()
        optimizer.zero_grad()


def aggregators() -> dict[str, Callable[[Tensor], Tensor]]:
    """Torchjd's counterparts that can be made here; the reason is printed for the others, whose stand-in is `mean`."""
    try:
        from torchjd import aggregation
    except ImportError:
        print("torchjd is not installed: only the plain sum is compared. pip install 'transfuse[mtl]'")
        return {}
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "upgrad": aggregation.UPGrad,
        "pcgrad": aggregation.PCGrad,
        "cagrad": lambda: aggregation.CAGrad(c=0.5),
        "mgda": aggregation.MGDA,
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} of torchjd cannot be made, the mean of the rows is its lower bound: {error}")
            found["mean"] = aggregation.Mean()
    return found


def per_step(sides: dict[str, Callable[[int], None]], long: int) -> dict[str, float]:
    """Median CPU milliseconds a step of each side, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(ROUNDS + 1):
        for name, side in sides.items():
            seconds = []
            for steps in (SHORT, long):
                started = time.process_time()
                side(steps)
                seconds.append(time.process_time() - started)
            if round_number > 0:
                found[name].append(1000 * (seconds[1] - seconds[0]) / (long - SHORT))
    return {name: statistics.median(values) for name, values in found.items()}


def sides(kind: str, count: int, others: dict[str, Callable[[Tensor], Tensor]]) -> dict[str, Callable[[int], None]]:
    """Every training that is compared at this size."""
    found: dict[str, Callable[[int], None]] = {
        "plain": lambda steps: ours(kind, count, None, steps),
        "joint_sum": lambda steps: ours(kind, count, JointSum(), steps),
    }
    for name in [*RULES, "mean"]:
        if name in RULES:
            found[name] = lambda steps, rule=RULES[name]: ours(kind, count, rule, steps)  # type: ignore[misc]
        if name in others:
            for label, chunk in (("default", None), ("chunk 1", 1)):
                found[f"{name} torchjd {label}"] = lambda steps, other=others[name], chunk=chunk: theirs(  # type: ignore[misc]
                    kind, count, other, chunk, steps
                )
    if count == COUNTS[-1]:
        feature = UPGrad(gradient={"backend": "feature", "reduce": "jacobian"})
        found["upgrad feature"] = lambda steps: ours(kind, count, feature, steps)
    return found


def main() -> None:
    torch.set_num_threads(1)
    print(f"hardware  {platform.machine()}, {platform.processor() or 'unknown processor'}, CPU, 1 thread")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    others = aggregators()
    print(f"repeats   {ROUNDS} rounds in turn, medians; CPU ms a step, batch {BATCH}\n")
    against_default = []
    results: dict[str, tuple[float, float | None]] = {}
    for kind in LONG:
        for count in COUNTS:
            found = per_step(sides(kind, count, others), LONG[kind])
            for name, value in found.items():
                print(f"{kind} {count:>2} tasks  {name:<24} {value:>8.3f}  {value / found['plain']:>6.2f} of plain")
            results[f"joint_sum_{kind}_{count}"] = (found["joint_sum"] / found["plain"], 1.1)
            if "upgrad feature" in found:
                results[f"feature_{kind}_{count}"] = (found["upgrad feature"] / found["plain"], FEATURE_LIMIT[kind])
            for name in RULES if others else ():
                other = name if name in others else "mean"
                default, single = (found[f"{other} torchjd {label}"] for label in ("default", "chunk 1"))
                better = found[name] / min(default, single)
                if other == name:
                    against_default.append(found[name] / default)
                    results[f"{name}_{kind}_{count}_to_better"] = (better, 1.05)
                else:
                    results[f"{name}_{kind}_{count}_to_better_mean"] = (better, None)
    if against_default:
        results["loop_to_default_median"] = (statistics.median(against_default), 0.7)
    print()
    for name, (ratio, limit) in results.items():
        print(f"ratio {name} {ratio:.3f}")
        if limit is not None:
            print(f"limit {name} {limit}")


if __name__ == "__main__":
    main()
