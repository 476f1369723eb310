from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from torch import nn

from transfuse.training import BaseModule, Devices, Fit, Training
from transfuse.types import NonFiniteError, Split, Task


@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_shows_one_bar_that_ends_with_the_training(
    tasks: tuple[Task, ...],
    make_network: Callable[..., nn.Module],
    make_split: Callable[..., Split],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    progress: bool,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit, settings = Fit(Devices(accelerator="cpu", devices=1, progress=progress)), Training(epochs=2, batch_size=8)
    module = BaseModule(make_network(tasks), tasks, settings)
    result = fit(module, make_split(20), make_split(9, 1), settings=settings, seed=0, name="base model x")
    shown = capsys.readouterr().err
    assert ("base model x" in shown) == progress
    assert (f"validation loss {result.history[-1]['validation/loss']:.4g}" in " ".join(shown.split())) == progress

    broken = make_split(20)
    broken.inputs[0] = float("nan")
    module = BaseModule(make_network(tasks), tasks, settings)
    with pytest.raises(NonFiniteError):
        fit(module, broken, make_split(9, 1), settings=settings, seed=0, name="base model y")
    assert ("\x1b[?25h" in capsys.readouterr().err) == progress  # the cursor is back


def test_output_that_is_no_terminal_shows_none(
    tasks: tuple[Task, ...],
    make_network: Callable[..., nn.Module],
    make_split: Callable[..., Split],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit, settings = Fit(Devices(accelerator="cpu", devices=1, progress=True)), Training(epochs=1)
    module = BaseModule(make_network(tasks), tasks, settings)
    fit(module, make_split(20), make_split(9, 1), settings=settings, seed=0, name="base model x")
    assert capsys.readouterr().err == ""
