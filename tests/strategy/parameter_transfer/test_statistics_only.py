from __future__ import annotations

from pathlib import Path

import torch

from tests.strategy.parameter_transfer.cases import problem, start
from transfuse.strategy.parameter_transfer import StatisticsOnly


def test_tensors_keep_mean_and_deviation_alone(tmp_path: Path) -> None:
    context = problem(tmp_path)
    source, network = context.base_models[0].state, start(StatisticsOnly(), context)
    key, value = max(
        ((key, value) for key, value in network.state_dict().items() if "heads" not in key),
        key=lambda item: item[1].numel(),
    )
    assert not torch.equal(value, source[key])
    assert abs(float(value.std() / source[key].std()) - 1) < 0.4
