from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask, Seeds
from transfuse.metrics import scores
from transfuse.strategy.baseline import BestSingle
from transfuse.types import IncompatibleStrategyError


def test_the_member_with_the_lowest_validation_loss_is_chosen(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN)), Seeds(count=4), tmp_path)
    fused = BestSingle().apply(context)
    labels = context.development.validation.targets["sign"]
    losses = [scores(SIGN, logits, labels)["nll"] for logits in context.base_models.logits("validation")["sign"]]
    best = min(range(4), key=losses.__getitem__)
    assert fused.members == (best,) and fused.diagnostics["selected"] == f"seeds-{best}"
    assert fused.fit["sign"]["nll"] == pytest.approx(losses[best])
    assert fused.looks == 4
    assert fused.network is not None
    state = context.base_models[best].state
    assert all(torch.equal(value, state[name]) for name, value in fused.network.state_dict().items())


def test_the_honest_score_is_not_the_best_members_own(tmp_path: Path) -> None:
    """Chosen on 4/5 and judged on the rest: a mixture of members' predictions unless one is best on every part."""
    context = make_context(make_setting(make_development(SIGN)), Seeds(count=1), tmp_path)
    alone = BestSingle().apply(context)
    assert alone.validation["sign"]["nll"] == pytest.approx(alone.fit["sign"]["nll"])
    several = BestSingle().apply(make_context(make_setting(make_development(SIGN)), Seeds(count=4), tmp_path))
    assert several.validation["sign"]["nll"] >= several.fit["sign"]["nll"] - 1e-12


def test_members_without_a_task_are_refused(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    with pytest.raises(IncompatibleStrategyError, match="Found per_task-sign without value"):
        BestSingle().check(context.development, context.base_models.description)
