from __future__ import annotations

from pathlib import Path

import torch

from tests.strategy.parameter_transfer.cases import problem, start
from transfuse.strategy.parameter_transfer import ShuffledWeights


def test_tensors_keep_their_entries_in_another_order(tmp_path: Path) -> None:
    context = problem(tmp_path)
    source, state = context.base_models[0].state, start(ShuffledWeights(), context).state_dict()
    for key, value in state.items():
        if "heads" not in key:
            assert torch.equal(value.flatten().sort().values, source[key].flatten().sort().values), key
    assert not torch.equal(
        state["backbone.stem.0.weight"] if "backbone.stem.0.weight" in state else next(iter(state.values())),
        next(iter(source.values())),
    )
