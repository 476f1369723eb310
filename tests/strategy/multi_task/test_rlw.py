from __future__ import annotations

import torch

from transfuse.strategy.multi_task import RandomLossWeighting
from transfuse.training.step import StepInfo


def test_weights_are_even_on_average_and_come_from_the_steps_stream() -> None:
    weighting, step = RandomLossWeighting(scale="published"), StepInfo.anonymous(3)
    losses_TT = torch.eye(3, dtype=torch.float64)
    drawn = []
    for _ in range(10_000):
        state = step.generator.get_state()
        row = []
        for losses_T in losses_TT:
            step.generator.set_state(state)
            row.append(weighting.combine(losses_T, None, step).item())
        drawn.append(row)
    weights_NT = torch.tensor(drawn, dtype=torch.float64)
    torch.testing.assert_close(weights_NT.sum(1), torch.ones(10_000, dtype=torch.float64), rtol=1e-6, atol=0)
    assert ((weights_NT.mean(0) - 1 / 3).abs() < 0.01).all()
    assert weights_NT.std(0).min() > 0.1
