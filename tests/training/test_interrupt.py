"""Ctrl-C during a training reaches the caller as it is, and can be pressed again in the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from transfuse.training import BaseModule, Devices, Fit, Training
from transfuse.training.interrupt import interruptible
from transfuse.types import Split, Task

TASK = Task(name="class", kind="classification", outputs=3)


class Signals(nn.Module):
    """Sends once what Ctrl-C sends to the main process, and trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.main = os.getpid()
        self.sent = False

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        if self.training and first and not self.sent:
            self.sent = True
            os.kill(self.main, signal.SIGINT)
        return {"class": self.layer(inputs)}


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_is_a_keyboard_interrupt_each_time(
    make_split: Callable[..., Split], tmp_path: Path, processes: int
) -> None:
    settings = Training(epochs=1000, batch_size=8)
    fit = Fit(Devices(accelerator="cpu", devices=processes, strategy="auto", progress=False), tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(2):
            module = BaseModule(Signals(), (TASK,), settings)
            with pytest.raises(KeyboardInterrupt):
                fit(module, make_split(24), make_split(9, 1), settings=settings, seed=0, name="stopped")
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_other_ends_of_the_program_pass() -> None:
    with pytest.raises(SystemExit) as end, interruptible():
        raise SystemExit(3)
    assert end.value.code == 3
