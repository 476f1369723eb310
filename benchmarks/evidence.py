"""How far the leaderboard's verdicts can be trusted: `python benchmarks/evidence.py [figure.png]`.

Simulated sweeps over stored test losses of 40 real networks of one recipe (see `transfuse.evidence.simulation`):
identical strategies must be told apart in at most 5 % of them (7 % is the limit, for the noise of the simulation), and
a planted difference must be found as often as the noncentral t distribution says, within 5 points.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import stats

from transfuse.evidence.simulation import SimulatedSweeps
from transfuse.tracking.record import versions

LOSSES = Path(__file__).parents[1] / "tests" / "golden" / "evidence" / "digits_nll.npz"
SWEEPS = 2000
SHIFTS = (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02)


def false_differences(losses_MN: np.ndarray) -> dict[str, float]:
    """Share of sweeps of identical strategies that declare a difference, by kind of sweep."""
    found = {}
    for shared_test in (False, True):
        for seeds, strategies in ((3, 6), (5, 6), (5, 2), (5, 8)):
            kind = SimulatedSweeps(losses_MN=losses_MN, seeds=seeds, strategies=strategies, shared_test=shared_test)
            name = f"{'shared' if shared_test else 'separate'}_test_{strategies}_strategies_{seeds}_seeds"
            found[name] = kind.false_difference_rate(SWEEPS, np.random.default_rng(0))
    return found


def powers(losses_MN: np.ndarray, seeds: int = 5) -> dict[float, tuple[float, float]]:
    """Planted difference -> (power found, power of the paired t test by the noncentral t distribution)."""
    kind = SimulatedSweeps(losses_MN=losses_MN, seeds=seeds, strategies=2, shared_test=False)
    rng = np.random.default_rng(1)
    sd = np.std([kind.differences(rng)[0].mean(axis=1) for _ in range(SWEEPS)])
    critical = stats.t.ppf(0.975, seeds - 1)
    return {
        shift: (
            kind.power(shift, SWEEPS, np.random.default_rng(2)),
            float(stats.nct.sf(critical, seeds - 1, shift * np.sqrt(seeds) / sd)),
        )
        for shift in SHIFTS
    }


def draw(path: str, rates: dict[str, float], power: dict[float, tuple[float, float]]) -> None:
    """The figure of docs/evidence.md."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [name.replace("_test_", " test sets, ").replace("_", " ") for name in rates]
    left.barh(names, [100 * rate for rate in rates.values()], color="0.6", edgecolor="black")
    left.axvline(5, color="black", linestyle="--", label="nominal")
    left.set(xlabel="sweeps of identical strategies with a verdict, %", xlim=(0, 7.5))
    left.legend(loc="lower right")
    shifts = list(power)
    right.plot(shifts, [100 * expected for _, expected in power.values()], "k--", label="noncentral t distribution")
    right.plot(shifts, [100 * found for found, _ in power.values()], "ks", label="simulated sweeps")
    right.set(xlabel="planted difference in NLL (2 strategies, 5 seeds)", ylabel="found, %", ylim=(0, 100))
    right.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(f"repeats   {SWEEPS} simulated sweeps a row, fixed seeds\n")
    losses_MN = np.load(LOSSES)["losses_MN"].astype(float)
    rates, power = false_differences(losses_MN), powers(losses_MN)
    for name, rate in rates.items():
        print(f"{name:<42} {100 * rate:>5.1f} %")
    print(f"\n{'planted difference':<20} {'found':>8} {'expected':>9}")
    for shift, (found, expected) in power.items():
        print(f"{shift:<20} {100 * found:>6.1f} % {100 * expected:>7.1f} %")
    print()
    print(f"ratio largest_false_difference_rate {max(rates.values()):.4f}")
    print("limit largest_false_difference_rate 0.07")
    print(f"ratio largest_power_error {max(abs(found - expected) for found, expected in power.values()):.4f}")
    print("limit largest_power_error 0.05")
    if len(sys.argv) > 1:
        draw(sys.argv[1], rates, power)


if __name__ == "__main__":
    main()
