"""Which parameters of each way to share are the tasks' own, and which a rule on gradients balances."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from torch import Tensor

from transfuse.models import build_cnn
from transfuse.models.sharing import CGC, MTAN, PLE, CrossStitch, DSelectK, HardSharing, MMoE, Sharing
from transfuse.training.jacobian import Roles
from transfuse.types import Task

TASKS = tuple(Task(name=name, kind="classification", outputs=3) for name in ("a", "b"))
OWN = {  # patterns of what task `a` has for itself, beside its head; stage 1 is the last
    HardSharing(): [],
    CrossStitch(): [r"stitches\.1\.a", r"backbones\.0\.neck\..*"],
    MMoE(): [r"gates\.a\..*"],
    MMoE(gate_on="stem"): [r"gates\.a\..*"],
    CGC(): [r"own\.a\..*", r"gates\.a\..*"],
    # the shared stream takes from own experts too, but for the last stage
    PLE(): [r"levels\.[01]\.gates\.a\..*", r"levels\.1\.own\.a\..*", r"necks\.a\..*"],
    DSelectK(): [r"gates\.a\..*"],
    MTAN(): [r"attention\.a\..*"],
}


@pytest.mark.parametrize("sharing", OWN, ids=lambda sharing: str(sharing).partition("(")[0])
def test_what_one_task_alone_uses_is_its_own(sharing: Sharing) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make = partial(build_cnn, channels=(4, 6), features=5)
        network = sharing.build(make, input_shape=(1, 8, 8), tasks=TASKS)
        outputs: dict[str, Tensor] = network(torch.randn(4, 1, 8, 8))
    roles = Roles.of(network, [outputs[task.name].square().mean() for task in TASKS], ("a", "b"))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(parameter)] for parameter in roles.own[0]}
    patterns = [*OWN[sharing], r"heads\.a\..*"]
    assert found == {name for name in names.values() if any(re.fullmatch(each, name) for each in patterns)}
    assert all(any(re.fullmatch(each, name) for name in found) for each in patterns)
    # all that no task has for itself is shared: nothing is left out
    other = {names[id(parameter)] for parameter in roles.own[1]}
    assert len(other) == len(found) and not other & found
    assert set(roles.shared) == set(names.values()) - found - other
