"""Output fusion beside what one would use instead: `python benchmarks/output_fusion.py`.

One thread, CPU time of the process, the two sides of a case in turn, the minimum over rounds. Every case checks that
both sides give the same answer. A ratio is ours over theirs.

Greedy selection is compared with AutoGluon's published algorithm in NumPy: each step averages the bag anew, then scores
one candidate after the other on whole rows. Both sides start from the members' logits. The optimal weights are compared
with SciPy's SLSQP, both from the likelihoods of the labels: as one calls it, and (without a limit) with exact gradients
written by hand. SLSQP stops at a gap of 1e-7 and does not say so; ours is certified to 1e-8.

A fused network is compared with a loop over its members and the same combiner: many forward passes of one batch.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from torch import Tensor, nn

from transfuse.models import build_cnn, build_mlp
from transfuse.strategy.output_fusion import Fused, GreedySelection
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.predictions import Predictions, true_log_probs
from transfuse.strategy.weights.simplex import optimal_mixture
from transfuse.tracking.record import versions
from transfuse.types import Task

ROUNDS = 5
TASK = Task(name="class", kind="classification", outputs=10)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two ways to the same answer.

    Attributes:
        name: of the ratio.
        size: of the problem, for the table.
        ours: what is measured.
        theirs: what it is compared with.
        agree: whether the two answers are the same.
        limit: of ours over theirs; None where the ratio is only shown.
        rounds: more of them for short cases.
    """

    name: str
    size: str
    ours: Callable[[], Array]
    theirs: Callable[[], Array]
    agree: Callable[[Array, Array], bool]
    limit: float | None
    rounds: int = ROUNDS


def members(count: int, examples: int, classes: int) -> Predictions:
    """Float32 logits of members of differing quality that share a part of their errors, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(classes, (examples,), generator=generator)
    shared_NC = torch.randn(examples, classes, generator=generator)
    spread_M11 = torch.linspace(0.5, 1.0, count)[:, None, None]
    logits_MNC = shared_NC + spread_M11 * torch.randn(count, examples, classes, generator=generator)
    logits_MNC[:, torch.arange(examples), labels_N] += 2.0
    return Predictions(logits_MNC=logits_MNC, kind="classification", labels=labels_N)


def greedy_reference(p_MNC: Array, labels_N: NDArray[np.int64], size: int) -> Array:
    """Weights by AutoGluon's algorithm with log loss; the first of equals where members outside of the bag tie."""
    bag: list[int] = []
    trajectory: list[float] = []
    rows_N, rounding = np.arange(len(labels_N)), False
    for step in range(size):
        mean_NC = np.zeros(p_MNC[0].shape)
        for member in bag:
            mean_NC += p_MNC[member]
        mean_NC /= max(step, 1)
        weighted_NC = step / (step + 1) * mean_NC
        candidate_NC = np.zeros(p_MNC[0].shape)
        losses_M = np.zeros(len(p_MNC))
        for member, p_NC in enumerate(p_MNC):
            candidate_NC[:] = weighted_NC + 1 / (step + 1) * p_NC
            candidate_NC[:] = candidate_NC / candidate_NC.sum(axis=1)[:, np.newaxis]
            loss = -np.log(np.clip(candidate_NC[rows_N, labels_N], 1e-15, None)).mean()
            losses_M[member] = loss.round(6) if rounding else loss
        tied = np.flatnonzero(losses_M == losses_M.min()).tolist()
        best = ([member for member in tied if member in bag] or tied)[0]
        if step == 0 and losses_M[best] > 1e-4:
            rounding = True
            losses_M = losses_M.round(6)
        bag.append(best)
        trajectory.append(float(losses_M[best]))
    kept = int(np.argmin(trajectory)) + 1
    return np.bincount(bag[:kept], minlength=len(p_MNC)) / kept


def greedy(name: str, count: int, examples: int, classes: int, size: int, limit: float) -> Case:
    predictions = members(count, examples, classes)
    logits_MNC, labels_N = predictions.logits_MNC.numpy(), predictions.truth.numpy()

    def ours() -> Array:
        weights_M = GreedySelection(size=size, ties="first").combine(predictions).weights
        assert weights_M is not None
        found: Array = weights_M.numpy()
        return found

    return Case(
        name=name,
        size=f"{count} x {examples} x {classes}, size {size}",
        ours=ours,
        theirs=lambda: greedy_reference(softmax(logits_MNC.astype(np.float64), axis=2), labels_N, size),
        agree=lambda found_M, expected_M: bool(np.abs(found_M - expected_M).max() < 1e-12),
        limit=limit,
    )


def nll_optimal(name: str, count: int, examples: int, *, exact_gradient: bool, limit: float | None) -> Case:
    predictions = members(count, examples, 10)
    log_p_ME = true_log_probs(predictions.log_outcomes_MEO, predictions.outcomes_E)
    p_ME: Array = log_p_ME.exp().numpy()

    def loss(w_M: Array) -> float:
        return -float(np.log(w_M @ p_ME).mean())

    def gradient(w_M: Array) -> Array:
        return -(p_ME @ (1 / (w_M @ p_ME))) / examples

    def theirs() -> Array:
        found: Array = minimize(
            loss,
            np.full(count, 1 / count),
            jac=gradient if exact_gradient else None,
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda w_M: w_M.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-12, "maxiter": 1000},
            method="SLSQP",
        ).x
        return found

    return Case(
        name=name,
        size=f"{count} x {examples}, gap 1e-8",
        ours=lambda: optimal_mixture(log_p_ME)[0].numpy(),
        theirs=theirs,
        agree=lambda found_M, expected_M: loss(found_M) <= loss(expected_M / expected_M.sum()) + 1e-8,
        limit=limit,
    )


def fused_network(build: Callable[[], nn.Module], count: int) -> Fused:
    """The average of `count` untrained networks."""
    pool = LinearPool("classification", weights=torch.full((count,), 1 / count, dtype=torch.float64))
    networks = [build() for _ in range(count)]
    return Fused(networks, {TASK.name: pool}, kept=range(count), num_members=count).eval()


def inference(name: str, network: Fused, shape: tuple[int, ...], batch: int, limit: float) -> Case:
    inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    combiner = network.combiners[TASK.name]
    passes = max(1, (200 if len(shape) == 1 else 20) // batch)

    def in_turn() -> Tensor:
        fused_NC: Tensor = combiner(torch.stack([member(inputs)[TASK.name] for member in network.members]))
        return fused_NC

    @torch.no_grad()
    def several(run: Callable[[], Tensor]) -> Array:
        for _ in range(passes):
            output_NC = run()
        return output_NC.double().numpy()

    return Case(
        name=f"inference_{name}_batch_{batch}",
        size=f"{len(network.members)} members, {passes} passes",
        ours=lambda: several(lambda: network(inputs)[TASK.name]),
        theirs=lambda: several(in_turn),
        agree=lambda found_NC, expected_NC: bool(np.abs(found_NC - expected_NC).max() < 2e-6),
        limit=limit,
        rounds=40 if batch < 256 else 20,
    )


def inference_cases() -> Iterator[Case]:
    """Never slower than the loop; much faster for small networks and batches."""
    image = (1, 28, 28)
    networks = {
        "mlp_64_5": (fused_network(lambda: build_mlp(input_shape=(64,), tasks=(TASK,)), 5), (64,), {1: 1 / 1.5}),
        "mlp_784_5": (fused_network(lambda: build_mlp(input_shape=(784,), tasks=(TASK,)), 5), (784,), {1: 1 / 1.5}),
        "mlp_784_10": (
            fused_network(lambda: build_mlp(input_shape=(784,), tasks=(TASK,)), 10),
            (784,),
            {1: 0.5, 32: 1 / 1.15},
        ),
        "cnn_28_5": (fused_network(lambda: build_cnn(input_shape=image, tasks=(TASK,)), 5), image, {}),
        "cnn_8_5": (fused_network(lambda: build_cnn(input_shape=(1, 8, 8), tasks=(TASK,)), 5), (1, 8, 8), {}),
    }
    for name, (network, shape, limits) in networks.items():
        for batch in (1, 32, 256):
            yield inference(name, network, shape, batch, limits.get(batch, 1.05))


def cases() -> list[Case]:
    """All comparisons."""
    return [
        *inference_cases(),
        greedy("greedy_selection", 20, 20_000, 10, 25, limit=0.1),
        greedy("greedy_selection_100_steps", 50, 5000, 10, 100, limit=1.0),
        nll_optimal("nll_optimal", 50, 5000, exact_gradient=False, limit=0.5),
        nll_optimal("nll_optimal_exact_gradient", 50, 5000, exact_gradient=True, limit=None),
    ]


def measure(case: Case) -> tuple[float, float]:
    """CPU seconds of ours and theirs: the minimum over rounds, after one that is not counted."""
    assert case.agree(case.ours(), case.theirs()), f"the two sides of {case.name} disagree"
    seconds: list[list[float]] = [[], []]
    for _ in range(case.rounds):
        for spent, side in zip(seconds, (case.ours, case.theirs), strict=True):
            started = time.process_time()
            side()
            spent.append(time.process_time() - started)
    return min(seconds[0]), min(seconds[1])


def main() -> None:
    torch.set_num_threads(1)
    print(f"hardware  {platform.machine()}, {platform.processor() or 'unknown processor'}, CPU, 1 thread")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(f"repeats   {ROUNDS} rounds or more in turn, minimum; CPU ms\n")
    print(f"{'case':<28} {'size':<32} {'ours':>9} {'theirs':>9} {'ratio':>7}")
    results = []
    for case in cases():
        ours, theirs = measure(case)
        results.append((case.name, ours / theirs, case.limit))
        print(f"{case.name:<28} {case.size:<32} {1000 * ours:>9.1f} {1000 * theirs:>9.1f} {ours / theirs:>7.3f}")
    print()
    for name, ratio, limit in results:
        print(f"ratio {name} {ratio:.4f}")
        if limit is not None:
            print(f"limit {name} {limit}")


if __name__ == "__main__":
    main()
