from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import conflicting
from transfuse.models import build_mlp
from transfuse.strategy.multi_task import DualProj, GradNorm, GradVac, Grouped, JointSum, NashMTL, PCGrad, UPGrad
from transfuse.training import Devices, Fit, MultiTaskModule, Training
from transfuse.types import HyperparameterError, IncompatibleStrategyError, Split, Task

TASKS = (
    Task(name="kind", kind="classification", outputs=2),
    Task(name="value", kind="regression", outputs=1, location=(0.0,), scale=(1.0,)),
)


def examples(num: int) -> Split:
    inputs = torch.randn(num, 4, generator=torch.Generator().manual_seed(num))
    targets = {"kind": (inputs[:, 0] > 0).long(), "value": -3 * inputs[:, :1] + inputs[:, 1:2]}
    return Split(inputs=inputs, targets=targets, ids=torch.arange(num))


def train(rule: Any, *, pauses: tuple[int, ...] = (), epochs: int = 2) -> tuple[dict[str, torch.Tensor], Any]:
    torch.manual_seed(0)
    network = build_mlp(input_shape=(4,), tasks=TASKS, widths=[6, 5])
    settings = Training(epochs=epochs, batch_size=16, lr=1e-2)
    module = MultiTaskModule(network, TASKS, settings, rule)
    fit = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    fitting = fit.begin(module, examples(48), examples(16), settings=settings, seed=0, name="tasks")
    for step in (*pauses, fitting.total_steps):
        fitting.advance(step)
    return dict(fitting.snapshot().state_dict()), module


def test_names_make_groups() -> None:
    names = ["backbone.0.weight", "backbone.0.bias", "backbone.2.weight", "stem.norm.scale"]
    layers = {"backbone.0": tuple(names[:2]), "backbone.2": (names[2],), "stem.norm": (names[3],)}
    assert Grouped().partition(names) == layers
    assert Grouped(by="backbone").partition(names) == {"backbone": tuple(names[:3]), "": (names[3],)}
    assert Grouped(by=r"\w+\.\d").partition(names) == {**dict(list(layers.items())[:2]), "": (names[3],)}


def test_one_group_is_the_inner_rule() -> None:
    gradients_TP = conflicting(3)
    for inner in (DualProj(), NashMTL(scale="published"), PCGrad(order="fixed", scale="sum_norm")):
        one = Grouped(inner=inner).weigh(gradients_TP @ gradients_TP.T)
        assert torch.equal(one, inner.weigh(gradients_TP @ gradients_TP.T))
    assert transfuse.balance(gradients_TP, method="grouped").weights_T is not None


def test_what_all_rules_have_is_said_by_the_inner_rule() -> None:
    rule = Grouped(inner=UPGrad(scale="published", heads="weighted", transform="log", every=3, gradient={}))
    assert (rule.scale, rule.heads, rule.transform, rule.every) == ("published", "weighted", "log", 3)
    with pytest.raises(TypeError, match="scale"):
        Grouped(scale="sum")  # type: ignore[call-arg]


def test_each_layer_gets_its_own_weights_in_training() -> None:
    layered, module = train(Grouped(inner=NashMTL()))
    # two hidden layers are shared
    assert len(module.rule.state_dict()["weights"]) == 2
    whole, _ = train(NashMTL())
    assert max((layered[key] - whole[key]).abs().max().item() for key in whole) > 1e-4
    one_group, _ = train(Grouped(inner=NashMTL(), by="nothing"))
    assert all(torch.equal(one_group[key], whole[key]) for key in whole)


def rows_of_layers(network: Any, split: Split) -> dict[str, tuple[list[Any], torch.Tensor]]:
    """Layer of the backbone -> its parameters, and the tasks' gradients with respect to them, flat."""
    outputs = network(split.inputs)
    losses = [
        torch.nn.functional.cross_entropy(outputs["kind"], split.targets["kind"]),
        torch.nn.functional.mse_loss(outputs["value"], split.targets["value"]),
    ]
    found = {}
    for name, layer in network.backbone.named_modules():
        if own := list(layer.parameters(recurse=False)):
            rows = [torch.autograd.grad(loss, own, retain_graph=True) for loss in losses]
            found[name] = own, torch.stack([torch.cat([each.flatten() for each in row]) for row in rows]).double()
    return found


def first_step(rule: Any) -> tuple[dict[str, tuple[list[Any], torch.Tensor]], dict[Any, torch.Tensor]]:
    """What `rows_of_layers` says before it, and the gradients that the optimizer got."""
    torch.manual_seed(0)
    network, split = build_mlp(input_shape=(4,), tasks=TASKS, widths=[6, 5]), examples(48)
    settings = Training(epochs=1, batch_size=48, lr=1e-2)
    module = MultiTaskModule(network, TASKS, settings, rule)
    layers, found = rows_of_layers(network, split), {}
    original = module.take_step

    def spy() -> None:
        found.update({each: each.grad.clone() for each in network.backbone.parameters()})
        original()

    module.take_step = spy  # type: ignore[method-assign]
    fit = Fit(Devices(accelerator="cpu", devices=1, progress=False))
    fit.begin(module, split, examples(16), settings=settings, seed=0, name="tasks").advance(1)
    return layers, found


def test_the_first_step_is_the_inner_rule_in_each_layer() -> None:
    layers, found = first_step(Grouped(inner=DualProj()))
    assert len(layers) == 2
    for own, rows_TP in layers.values():
        expected_P = DualProj().weigh(rows_TP @ rows_TP.T) @ rows_TP
        flat_P = torch.cat([found[parameter].flatten() for parameter in own]).double()
        torch.testing.assert_close(flat_P, expected_P, rtol=1e-4, atol=1e-6)


def test_gradnorm_may_look_at_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, weighing = [], GradNorm.weighing

    def spy(self: GradNorm, gramian_TT: torch.Tensor, *others: Any) -> Any:
        seen.append(gramian_TT.clone())
        return weighing(self, gramian_TT, *others)

    monkeypatch.setattr(GradNorm, "weighing", spy)
    layers, _ = first_step(GradNorm(on="last"))
    first_TP, last_TP = (rows_TP for _, rows_TP in layers.values())
    torch.testing.assert_close(seen.pop(), last_TP @ last_TP.T, rtol=1e-4, atol=1e-7)
    first_step(GradNorm())
    torch.testing.assert_close(seen.pop(), first_TP @ first_TP.T + last_TP @ last_TP.T, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "rule", [Grouped(inner=NashMTL(every=3)), GradVac(group="layer"), GradVac(group="layer", every=2)]
)
def test_groups_with_state_resume_exactly(rule: Any) -> None:
    one, _ = train(rule)
    other, _ = train(rule, pauses=(1, 4))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "rule",
    [
        Grouped(inner=UPGrad(gradient={"backend": "feature"})),
        Grouped(inner=UPGrad(gradient={"backend": "feature"}), by=r"backbone\.stages\.0"),
        GradVac(group="layer", gradient={"backend": "feature"}),
        GradNorm(on="last", gradient={"backend": "feature"}),
    ],
)
def test_features_have_no_layers(rule: Any) -> None:
    with pytest.raises(IncompatibleStrategyError, match="Did you mean gradient.backend=loop"):
        train(rule)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"inner": JointSum()},
            "`inner` should be a rule that weights by inner products .* Found multi_task/joint_sum",
        ),
        (
            {"inner": GradVac(group="layer")},
            "`inner` should decide for all parameters at once. Found multi_task/gradvac",
        ),
        ({"inner": Grouped()}, "`inner` should decide for all parameters at once. Found multi_task/grouped"),
        ({"inner": GradNorm(on="last")}, "`inner` should decide for all parameters at once. Found multi_task/gradnorm"),
        ({"by": "(0"}, r"`by` should be layer or a regular expression .* Found `by = \(0`"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Grouped(**given)


def test_preferences_of_the_inner_rule_are_checked() -> None:
    with pytest.raises(HyperparameterError, match=r"`inner.preference` should have 3 numbers, one a task. Found 2"):
        transfuse.balance(conflicting(3), method="grouped", inner=UPGrad(preference=[1.0, 2.0]))
