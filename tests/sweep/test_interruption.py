"""The first signal stops in order, the second at once."""

from __future__ import annotations

import multiprocessing
import signal
import sys

import pytest

from transfuse.sweep.interruption import Interrupted, stoppable

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_and_handlers_are_given_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted, match=f"^stopped by {number.name}$") as stop, stoppable():
        signal.raise_signal(number)
    assert isinstance(stop.value, KeyboardInterrupt)
    assert stop.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def twice(first: int, second: int) -> None:
    with stoppable():
        try:
            signal.raise_signal(first)
        except Interrupted:
            signal.raise_signal(second)
    sys.exit(0)


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_at_once(second: signal.Signals) -> None:
    process = multiprocessing.get_context("fork").Process(target=twice, args=(signal.SIGINT, second))
    process.start()
    process.join(30)
    assert process.exitcode == -second
