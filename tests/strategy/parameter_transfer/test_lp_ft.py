from __future__ import annotations

from pathlib import Path

import torch

from tests.strategy.parameter_transfer.cases import moved, problem, start, trained
from transfuse.strategy.parameter_transfer import FullFinetune, LpFt


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_it_starts_from_the_probe_and_trains_everything(tmp_path: Path) -> None:
    context = problem(tmp_path)
    assert {key for key in start(LpFt(), context).state_dict() if key.endswith("weight")} <= moved(LpFt(), context)
    still = LpFt(lr_factor=1e-30, head_lr_factor=1e-30, batch_norm="eval")
    from transfuse.strategy.parameter_transfer import LinearProbe

    probe, tuned = trained(LinearProbe(), context), trained(still, context)
    assert all(torch.allclose(value, tuned[key], atol=1e-6) for key, value in probe.items())
    assert not same(trained(FullFinetune(), context), trained(LpFt(), context))
