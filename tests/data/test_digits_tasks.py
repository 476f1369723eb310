from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transfuse.data import Digits, DigitsTasks


def test_three_tasks_on_the_splits_of_digits(tmp_path: Path) -> None:
    problem = DigitsTasks().build(seed=4, folder=tmp_path)
    digits = Digits().build(seed=4, folder=tmp_path)
    assert problem.development.kind == "multi_task"
    for ours, theirs in (
        (problem.development.train, digits.development.train),
        (problem.development.validation, digits.development.validation),
        (problem.test, digits.test),
    ):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.ids, theirs.ids)
        labels = theirs.targets["digit"]
        assert torch.equal(ours.targets["digit"], labels)
        assert torch.equal(ours.targets["parity"], labels % 2)
        assert torch.equal(ours.targets["value"], labels.float().unsqueeze(1))
    assert problem.development.fingerprint != digits.development.fingerprint


def test_tasks_are_described(tmp_path: Path) -> None:
    development = DigitsTasks().build(seed=0, folder=tmp_path).development
    digit, parity, value = development.tasks
    assert [(task.name, task.kind, task.outputs) for task in development.tasks] == [
        ("digit", "classification", 10),
        ("parity", "classification", 2),
        ("value", "regression", 1),
    ]
    assert digit.classes == tuple("0123456789")
    assert parity.classes == ("even", "odd")
    labels = development.train.targets["digit"].double()
    assert value.location == (pytest.approx(labels.mean().item()),)
    assert value.scale == (pytest.approx(labels.var(correction=0).sqrt().item()),)
