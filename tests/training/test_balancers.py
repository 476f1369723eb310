"""Every balancer in training: on two devices, paused, with several batches a step, and with tasks that lack labels."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from transfuse.models import build_mlp
from transfuse.strategy.multi_task import (
    DBMTL,
    FAMO,
    MGDA,
    ConflictGated,
    DynamicWeightAverage,
    ExcessMTL,
    GeometricLoss,
    GradDrop,
    GradientRule,
    GradNorm,
    GradVac,
    Grouped,
    ImpartialLoss,
    JacobianRule,
    JointSum,
    LogSum,
    LossWeighting,
    NashMTL,
    PCGrad,
    RandomLossWeighting,
    SmoothTchebycheff,
    UncertaintyWeighting,
    UPGrad,
)
from transfuse.training import Devices, Fit, MultiTaskModule, Training
from transfuse.training.jacobian import DetachedTaskError
from transfuse.training.step import StepInfo
from transfuse.types import Split, Task

TASKS = (
    Task(name="kind", kind="classification", outputs=3),
    Task(name="sign", kind="classification", outputs=2),
    Task(name="value", kind="regression", outputs=1, location=(0.0,), scale=(1.0,)),
)
RULES = [
    PCGrad(),
    PCGrad(every=3),
    PCGrad(transform="log"),
    PCGrad(transform="imtl_l"),
    PCGrad(heads="weighted"),
    UPGrad(),
    MGDA(),
    NashMTL(update_every=2),
    GradVac(group="layer"),
    GradNorm(on="last"),
    GradDrop(leak=0.1),
    ExcessMTL(step_size=0.1, warmup_steps=2),
    DBMTL(),
    Grouped(inner=UPGrad(every=3)),
    ConflictGated(inner=NashMTL(update_every=2), threshold=0.2),
]
FEATURE = UPGrad(gradient={"backend": "feature"})
WEIGHTINGS = [
    JointSum(),
    UncertaintyWeighting(),
    DynamicWeightAverage(),
    RandomLossWeighting(),
    GeometricLoss(),
    LogSum(),
    ImpartialLoss(),
    SmoothTchebycheff(),
    FAMO(),
]
Rule = GradientRule | JacobianRule
Balancer = Rule | LossWeighting
State = dict[str, Tensor]


def examples(num: int, first: int) -> Split:
    """Half of the labels of one task and a third of another's are missing."""
    generator = torch.Generator().manual_seed(first + 1)
    inputs = torch.randn(num, 6, generator=generator)
    kinds = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    signs = (inputs[:, 2] > 0).long()
    kinds[torch.rand(num, generator=generator) < 0.5] = -1
    signs[torch.rand(num, generator=generator) < 0.3] = -1
    targets = {"kind": kinds, "sign": signs, "value": inputs[:, 3:4].clone()}
    return Split(inputs=inputs, targets=targets, ids=torch.arange(first, first + num))


def train(balancer: Balancer, *, devices: int = 1, pauses: tuple[int, ...] = (), accumulate: int = 1) -> State:
    settings = Training(epochs=3, batch_size=16 // accumulate, accumulate=accumulate, lr=1e-2, gradient_clip=1.0)
    torch.manual_seed(0)
    network = build_mlp(input_shape=(6,), tasks=TASKS, widths=[16, 8])
    fit = Fit(Devices(accelerator="cpu", devices=devices, progress=False))
    module = MultiTaskModule(network, TASKS, settings, balancer)
    fitting = fit.begin(module, examples(96, 0), examples(32, 1000), settings=settings, seed=0, name="tasks")
    for step in (*pauses, fitting.total_steps):
        fitting.advance(step)
    return dict(fitting.snapshot().state_dict())


def difference(left: State, right: State) -> float:
    return max((left[key] - right[key]).abs().max().item() for key in left)


@pytest.mark.parametrize("balancer", [*RULES, FEATURE, *WEIGHTINGS], ids=str)
def test_two_devices_take_the_steps_of_one_and_a_pause_changes_nothing(balancer: Balancer) -> None:
    one = train(balancer)
    assert difference(one, train(balancer, devices=2)) < 1e-6
    assert difference(one, train(balancer, pauses=(3, 7))) == 0.0


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_four_small_batches_are_one_large_one(rule: Rule) -> None:
    assert difference(train(rule), train(rule, accumulate=4)) < 1e-6


def test_the_backends_agree_where_they_should() -> None:
    pytest.importorskip("torchjd")
    loop = train(UPGrad())
    assert difference(loop, train(UPGrad(gradient={"backend": "torchjd"}))) < 1e-6
    assert difference(loop, train(FEATURE)) > 1e-4  # another Gramian


def test_a_frozen_trunk_is_told() -> None:
    network = build_mlp(input_shape=(6,), tasks=TASKS, widths=[8])
    network.backbone.requires_grad_(False)
    settings = Training(epochs=1, batch_size=16)
    module = MultiTaskModule(network, TASKS, settings, UPGrad())
    with pytest.raises(DetachedTaskError, match="The loss of task kind does not depend on any parameter that tasks"):
        Fit(Devices(accelerator="cpu", devices=1, progress=False))(
            module, examples(32, 0), examples(16, 100), settings=settings, seed=0, name="tasks"
        )


class Watching(FAMO):
    """Notes the losses before and after each step."""

    seen: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def after_step(self, before_T: Tensor, after_T: Tensor, state: nn.Module | None, step: StepInfo) -> None:
        self.seen.append((before_T, after_T))


def test_losses_after_a_step_see_the_dropout_of_before_and_move_no_statistics() -> None:
    Watching.seen.clear()
    settings = Training(epochs=1, batch_size=16, optimizer="sgd", lr=1e-12)
    fit = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    states = []
    for balancer in (Watching(probe=0), JointSum(probe=0)):
        torch.manual_seed(0)
        network = build_mlp(input_shape=(6,), tasks=TASKS, widths=[16], dropout=0.5)
        network.backbone.stages[0].append(nn.BatchNorm1d(16))
        module = MultiTaskModule(network, TASKS, settings, balancer)
        states.append(fit(module, examples(64, 0), examples(16, 900), settings=settings, seed=0, name="x").network)
    assert len(Watching.seen) == 4
    for before_T, after_T in Watching.seen:
        torch.testing.assert_close(after_T, before_T, rtol=1e-5, atol=1e-6)
    left, right = (dict(each.named_buffers()) for each in states)
    assert all(torch.equal(left[name], right[name]) for name in left)
