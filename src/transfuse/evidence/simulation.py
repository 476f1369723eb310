"""How far verdicts can be trusted: simulated sweeps whose truth is known, from stored losses of real networks.

Networks of one recipe that differ by their seed alone are dealt to several "strategies": whatever differs between
these differs by chance. A shift added to one of them is a difference of known size.

Dimensions: M networks, N test examples, S seeds, K strategies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfuse.evidence.holm import holm
from transfuse.evidence.paired import paired_difference
from transfuse.evidence.verdict import Verdict, verdict
from transfuse.types import DataError


@dataclass(frozen=True, kw_only=True)
class SimulatedSweeps:
    """A kind of sweep to simulate.

    Attributes:
        losses_MN: per-example test losses of networks of one recipe; lower is better.
        seeds: S.
        strategies: K, the first is the reference; `S K <= M`.
        shared_test: whether all seeds have one test set, or each its own. Test sets are drawn with replacement.
    """

    losses_MN: NDArray[np.float64]
    seeds: int
    strategies: int
    shared_test: bool

    def __post_init__(self) -> None:
        if self.seeds * self.strategies > len(self.losses_MN):
            raise DataError(
                f"{self.strategies} strategies x {self.seeds} seeds need {self.strategies * self.seeds} networks. "
                f"Found {len(self.losses_MN)}."
            )

    def differences(self, rng: np.random.Generator, shift: float = 0.0) -> NDArray[np.float64]:
        """(K - 1, S, N) losses of one sweep's strategies minus the reference's; `shift` is added to the first."""
        num_networks, num_examples = self.losses_MN.shape
        dealt = rng.permutation(num_networks)[: self.seeds * self.strategies].reshape(self.strategies, self.seeds)
        tests = 1 if self.shared_test else self.seeds
        drawn_SN = np.broadcast_to(rng.integers(num_examples, size=(tests, num_examples)), (self.seeds, num_examples))
        losses_KSN = self.losses_MN[dealt[:, :, None], drawn_SN[None]]
        differences = losses_KSN[1:] - losses_KSN[:1]
        differences[0] += shift
        return differences

    def verdicts(self, rng: np.random.Generator, shift: float = 0.0) -> list[Verdict]:
        """The K - 1 verdicts of one sweep, as the leaderboard reaches them."""
        intervals = [
            paired_difference(difference_SN.mean(axis=1), difference_SN if self.shared_test else None)
            for difference_SN in self.differences(rng, shift)
        ]
        corrected = holm([interval.p_value for interval in intervals])
        return [verdict(interval, p, higher_is_better=False) for interval, p in zip(intervals, corrected, strict=True)]

    def false_difference_rate(self, sweeps: int, rng: np.random.Generator) -> float:
        """Share of sweeps of identical strategies (A/A) in which any difference is declared."""
        return float(np.mean([set(self.verdicts(rng)) != {"inconclusive"} for _ in range(sweeps)]))

    def power(self, shift: float, sweeps: int, rng: np.random.Generator) -> float:
        """Share of sweeps in which the first strategy, worse by `shift` > 0, is called worse."""
        return float(np.mean([self.verdicts(rng, shift)[0] == "worse" for _ in range(sweeps)]))
