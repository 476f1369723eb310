from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from transfuse.base_models.model import Description, MemberDescription
from transfuse.strategy.weight_fusion import Block, GreedySoup, TensorFusion, UniformSoup
from transfuse.strategy.weight_fusion.base import Need
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, MissingBaseError, Split, Task


def member(
    architecture: str = "mlp",
    layout: str | None = None,
    tasks: tuple[str, ...] = ("y",),
    trained_on: Literal["target", "source"] = "target",
) -> MemberDescription:
    return MemberDescription(
        name="m", key="k", architecture=architecture, layout=layout or architecture, tasks=tasks, trained_on=trained_on
    )


def pool(*members: MemberDescription, has_base: bool = False) -> Description:
    return Description(recipe="seeds", members=members, has_base=has_base)


def problem(*tasks: str, outputs: int = 3, source: Development | None = None) -> Development:
    split = Split(inputs=torch.zeros(2, 4), targets={}, ids=torch.arange(2))
    made = tuple(Task(name=name, kind="classification", outputs=outputs) for name in tasks)
    return Development(name="toy", tasks=made, train=split, validation=split, fingerprint="0", source=source)


@dataclass(frozen=True, kw_only=True)
class Delta(TensorFusion):
    """A method with a base, for pairs."""

    base: ClassVar[Need] = "required"
    least: ClassVar[int] = 2

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        assert block.base_B is not None
        return block.base_B


def message(strategy: TensorFusion | GreedySoup, development: Development, description: Description) -> str:
    with pytest.raises(IncompatibleStrategyError) as error:
        strategy.check(development, description)
    return str(error.value)


def test_one_architecture_is_fine() -> None:
    for strategy in (UniformSoup(), GreedySoup()):
        strategy.check(problem("y"), pool(member(), member()))


def test_architectures_are_named_with_their_models() -> None:
    assert message(UniformSoup(), problem("y"), pool(member("cnn"), member("cnn"), member("mlp"))) == (
        "weight_fusion/uniform_soup needs base models of one architecture. Found cnn (models 0, 1) and mlp (model 2). "
        "Did you mean an output_fusion strategy, or base_models=seeds?"
    )
    three = message(GreedySoup(), problem("y"), pool(member("cnn"), member("mlp"), member("vit"), member("mlp")))
    assert "Found cnn (model 0), mlp (models 1, 3) and vit (model 2)." in three


def test_sizes_count_as_architectures() -> None:
    found = message(UniformSoup(), problem("y"), pool(member("mlp", "a"), member("mlp", "b")))
    assert "Found mlp (model 0) and mlp of other sizes (model 1)." in found


def test_a_missing_base_is_named_before_training() -> None:
    with pytest.raises(MissingBaseError, match=r"base_models=seeds has none. Did you mean base_models=finetuned"):
        Delta().check(problem("y"), pool(member(), member()))
    Delta().check(problem("y"), pool(member(), member(), has_base=True))


def test_too_few_models() -> None:
    assert "fuses at least 2 models. Found 1." in message(Delta(), problem("y"), pool(member(), has_base=True))
    assert "fuses at least 1 model. Found 0." in message(UniformSoup(), problem("y"), pool())


def test_one_model_a_task_is_fine_and_every_task_needs_one() -> None:
    two = problem("a", "b")
    UniformSoup().check(two, pool(member(tasks=("a",)), member(tasks=("b",)), has_base=True))
    UniformSoup().check(two, pool(member(tasks=("a", "b")), member(tasks=("a", "b"))))
    found = message(UniformSoup(), problem("a", "b", "c"), pool(member(tasks=("a",)), member(tasks=("b",))))
    assert "Found none for c. Did you mean base_models=per_task?" in found


def test_models_of_other_tasks_are_refused() -> None:
    found = message(UniformSoup(), problem("y"), pool(member(), member(tasks=("z",))))
    assert "Found z in model 1 (m), and y in data=toy" in found


def test_transfer_needs_a_target_model_of_the_same_outputs() -> None:
    same = problem("y", source=problem("y"))
    source = member(trained_on="source")
    UniformSoup().check(same, pool(source, member()))
    assert "Did you mean base_models=source_and_target?" in message(UniformSoup(), same, pool(source))
    wider = problem("y", source=problem("y", outputs=10))
    found = message(UniformSoup(), wider, pool(source, member()))
    assert "Found inputs (4,) and y with 10 outputs in the source data and inputs (4,) and y with 3 outputs" in found
    renamed = message(UniformSoup(), problem("y", source=problem("z")), pool(replace(source, tasks=("z",)), member()))
    assert "Found z in model 0" in renamed or "z with 3 outputs in the source data" in renamed


def test_patterns_are_checked_before_training(toys) -> None:
    two = problem("a", "b")
    shared = replace(pool(member(tasks=("a", "b")), member(tasks=("a", "b"))), build=lambda: toys.network(0, two.tasks))
    apart = replace(pool(member(tasks=("a",)), member(tasks=("b",))), build=lambda: toys.network(0, two.tasks[:1]))
    for strategy in (UniformSoup, GreedySoup):
        for fields in ({"only": ("*.weigth",)}, {"skip": ("*.weight", "*.weigth")}):
            with pytest.raises(HyperparameterError, match=r"= \*.weigth`, which matches none. Known: backbone.stages"):
                strategy(**fields).check(two, shared)
        strategy(only=("*.weight",), skip=("heads.b.*",)).check(two, shared)
        for fuse, described in (("backbone", shared), (None, apart)):  # heads are not fused
            with pytest.raises(HyperparameterError, match=r"`skip` should match names of tensors. .*`skip = heads.a.*"):
                strategy(skip=("heads.a.*",), fuse=fuse).check(two, described)
            strategy(only=("backbone.*",), fuse=fuse).check(two, described)


def test_without_patterns_no_network_is_built() -> None:
    def refused() -> nn.Module:
        raise AssertionError("built for nothing")

    UniformSoup().check(problem("y"), replace(pool(member(), member()), build=refused))
