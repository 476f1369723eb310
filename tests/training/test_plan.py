from __future__ import annotations

import pytest
from torch import nn

from transfuse.training import ParameterGroup, Phase, Plan
from transfuse.types import HyperparameterError

EVERYTHING = ParameterGroup(names=("weight", "bias"))


def plan(*phases: Phase) -> Plan:
    return Plan(network=nn.Linear(2, 2), phases=phases)


def test_phases_end_at_their_shares_of_the_budget() -> None:
    phases = [
        Phase(name=name, share=share, groups=(EVERYTHING,)) for name, share in (("a", 0.25), ("b", 0.25), ("c", 0.5))
    ]
    assert plan(*phases).ends(10) == (2, 5, 10)
    assert plan(*phases).ends(1) == (0, 0, 1)


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"should sum to 1\. Found 0\.75"):
        plan(Phase(name="a", share=0.75, groups=(EVERYTHING,)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((ParameterGroup(names=("weight",)),), "1 in no group: bias"),
        ((EVERYTHING, ParameterGroup(names=("bias",))), "1 in several groups: bias"),
        ((EVERYTHING, ParameterGroup(names=("head",))), "1 unknown: head"),
        ((ParameterGroup(names=("weight", "bias"), trainable=False),), "should train at least one parameter"),
    ],
)
def test_each_parameter_is_in_exactly_one_group(groups: tuple[ParameterGroup, ...], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        plan(Phase(name="a", share=1.0, groups=groups))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr_factor": -1.0}, "`lr_factor` should be >= 0"),
        ({"weight_decay": -0.1}, "`weight_decay` should be >= 0"),
        ({"batch_norm": "frozen"}, "`batch_norm` should be train, eval or reestimate. Found `batch_norm = frozen`"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        ParameterGroup(names=("weight",), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_positive_and_at_most_one(share: float) -> None:
    with pytest.raises(HyperparameterError, match=r"`share` should be in \(0, 1\]"):
        Phase(name="a", share=share, groups=(EVERYTHING,))
