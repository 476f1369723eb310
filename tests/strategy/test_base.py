from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toy import CPU, SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import Seeds
from transfuse.strategy.base import Context
from transfuse.training.fit import Fit

CHANGES: dict[str, Callable[[Context], Context]] = {
    "seed": lambda context: replace(context, seed=1),
    "training": lambda context: replace(context, training=replace(context.training, lr=0.5)),
    "data": lambda context: replace(context, development=make_development(SIGN)),
    "precision": lambda context: replace(context, fit=Fit(replace(CPU, precision="bf16-mixed"))),
    "devices": lambda context: replace(context, fit=Fit(replace(CPU, devices=2))),
    "architecture": lambda context: replace(context, architecture=replace(context.architecture, recipe={})),
}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(make_setting(make_development(SIGN, VALUE)), Seeds(count=1), tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_a_training_changes_its_key(change: str, context: Context) -> None:
    assert CHANGES[change](context).training_key("name") != context.training_key("name")


def test_what_does_not_decide_it_leaves_its_key(context: Context) -> None:
    key = context.training_key("multi_task/pcgrad", "PCGrad()")
    quieter = replace(context, fit=Fit(replace(CPU, threads=2, checkpoint_every=None)), selection_metric="accuracy")
    assert quieter.training_key("multi_task/pcgrad", "PCGrad()") == key
    assert context.training_key("multi_task/pcgrad", "PCGrad(every=2)") != key
