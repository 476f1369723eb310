from __future__ import annotations

import pytest
import torch

from tests.strategy.multi_task.golden import conflicting
from transfuse.strategy.multi_task import MGDA, ConflictGated, GradDrop, Grouped, NashMTL, UPGrad
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("wrapper", [Grouped, ConflictGated])
def test_upgrad_is_the_default_and_fields_of_all_rules_come_from_the_inner_one(wrapper: type) -> None:
    assert wrapper().inner == UPGrad()
    gradient = {"backend": "feature"}
    rule = wrapper(inner=MGDA(scale="sum_norm", heads="weighted", transform="log", every=3, gradient=gradient))
    assert (rule.scale, rule.heads, rule.transform, rule.every, rule.backend) == (
        "sum_norm",
        "weighted",
        "log",
        3,
        "feature",
    )


def test_wrappers_wrap_wrappers() -> None:
    gramian_TT = conflicting(3) @ conflicting(3).T
    inner = NashMTL(scale="published")
    rule = Grouped(inner=ConflictGated(inner=inner, threshold=1.0))
    assert torch.equal(rule.weigh(gramian_TT), inner.weigh(gramian_TT))


@pytest.mark.parametrize("wrapper", [Grouped, ConflictGated])
def test_only_weightings_by_inner_products_can_be_wrapped(wrapper: type) -> None:
    with pytest.raises(HyperparameterError, match="`inner` should be a rule .* Found multi_task/graddrop"):
        wrapper(inner=GradDrop())
