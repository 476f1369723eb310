from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask, Seeds
from transfuse.models.predict import predict
from transfuse.strategy.baseline import SingleTask
from transfuse.types import IncompatibleStrategyError


def test_it_predicts_each_task_by_its_own_network(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = SingleTask().apply(context)
    assert fused.network is not None
    inputs = context.development.validation.inputs
    outputs = predict(fused.network, inputs)
    for member in context.base_models:
        (task,) = member.description.tasks
        assert torch.equal(outputs[task], predict(member.network(), inputs)[task])
        assert fused.validation[task] == member.validation[task]
    parameters = sum(parameter.numel() for parameter in fused.network.parameters())
    assert parameters == sum(
        value.numel()
        for member in context.base_models
        for name, value in member.state.items()
        if name.endswith(("weight", "bias"))
    )


def test_a_pool_of_shared_networks_is_refused(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), Seeds(count=2), tmp_path)
    with pytest.raises(IncompatibleStrategyError, match="Did you mean base_models=per_task"):
        SingleTask().check(context.development, context.base_models.description)
