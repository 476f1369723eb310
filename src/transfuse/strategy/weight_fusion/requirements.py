"""What a weight fusion asks of the pool, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from transfuse.base_models.model import Description, MemberDescription
from transfuse.types import (
    Development,
    HyperparameterError,
    IncompatibleStrategyError,
    MissingBaseError,
    StateDictMismatch,
)


class ModelCountError(IncompatibleStrategyError, HyperparameterError):
    """The method needs another number of models."""


class HeadMismatchError(StateDictMismatch, IncompatibleStrategyError):
    """Heads of models differ, and they should be fused."""


def check_count(name: str, found: int, least: int, most: int | None) -> None:
    """Raises `ModelCountError` unless `least <= found <= most`."""
    if found >= least and (most is None or found <= most):
        return
    wanted = f"exactly {least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
    raise ModelCountError(
        f"{name} fuses {wanted} model{'' if wanted.endswith(' 1') else 's'}. Found {found}. "
        "Should base_models.count be changed?"
    )


def check_architecture(name: str, members: Sequence[MemberDescription]) -> None:
    """Raises unless all members have the layout of the first."""
    by_layout: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        by_layout.setdefault(member.layout, []).append(index)
    if len(by_layout) == 1:
        return
    named: list[str] = []
    found: list[str] = []
    for indices in by_layout.values():
        architecture = members[indices[0]].architecture
        models = f"model{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
        found.append(f"{architecture}{' of other sizes' if architecture in named else ''} ({models})")
        named.append(architecture)
    raise IncompatibleStrategyError(
        f"{name} needs base models of one architecture. Found {_joined(found)}. "
        "Did you mean an output_fusion strategy, or base_models=seeds?"
    )


def check_base(name: str, pool: Description) -> None:
    """Raises unless all members started from one known set of weights."""
    if not pool.has_base:
        raise MissingBaseError(
            f"{name} needs the weights that all base models started from, and base_models={pool.recipe} has none. "
            "Did you mean base_models=finetuned, or a method without a base such as weight_fusion/uniform_soup?"
        )


def check_tasks(
    name: str, development: Development, members: Sequence[MemberDescription], *, fuse: str | None = None
) -> None:
    """Raises unless the members' heads can be fused, or each task finds its head in one of them."""
    wanted = [task.name for task in development.tasks]
    if fuse == "all" and len({member.tasks for member in members}) > 1:
        found = "; ".join(f"{', '.join(member.tasks)} in {member.name}" for member in members)
        raise HeadMismatchError(
            f"{name} cannot fuse heads of different tasks. Found {found}. Did you mean fuse=backbone?"
        )
    if development.kind == "transfer":
        _check_transfer(name, development, members)
    if development.kind != "multi_task":
        for index, member in enumerate(members):
            if list(member.tasks) != wanted:
                raise IncompatibleStrategyError(
                    f"{name} fuses models of the same tasks. Found {', '.join(member.tasks)} in model {index} "
                    f"({member.name}), and {', '.join(wanted)} in data={development.name}. "
                    "Did you mean strategy=parameter_transfer/full_finetune?"
                )
    missing = [task for task in wanted if all(task not in member.tasks for member in members)]
    if missing:
        raise IncompatibleStrategyError(
            f"{name} needs a base model with a head for every task. Found none for {', '.join(missing)}. "
            "Did you mean base_models=per_task?"
        )


def _check_transfer(name: str, development: Development, members: Sequence[MemberDescription]) -> None:
    if all(member.trained_on == "source" for member in members):
        raise IncompatibleStrategyError(
            f"{name} needs a base model that was trained on the target data. Found only models of the source. "
            "Did you mean base_models=source_and_target?"
        )
    source = development.source
    assert source is not None, "transfer problems have a source"
    if any(member.trained_on == "source" for member in members) and _interface(source) != _interface(development):
        raise IncompatibleStrategyError(
            f"{name} fuses models of the same inputs and outputs. Found {_described(source)} in the source data and "
            f"{_described(development)} in the target data. Did you mean strategy=parameter_transfer/full_finetune?"
        )


def _interface(development: Development) -> tuple[object, ...]:
    tasks = tuple((task.name, task.kind, task.outputs) for task in development.tasks)
    return development.input_shape, tasks


def _described(development: Development) -> str:
    tasks = ", ".join(f"{task.name} with {task.outputs} outputs" for task in development.tasks)
    return f"inputs {development.input_shape} and {tasks}"


def _joined(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
