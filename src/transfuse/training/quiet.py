"""Lightning without its notes: what it says about choices that are made here on purpose."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LEVELS = {
    "pytorch_lightning": logging.WARNING,
    "lightning_fabric": logging.WARNING,
    "torch.multiprocessing.spawn": logging.ERROR,  # that it ends the other ranks when one has failed
}
_WARNINGS = (
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's use of torch
    ".*module\\(s\\) in eval mode at the start of training.*",  # frozen layers
    ".*GPU available but not used.*",  # trainer=cpu
)


def hush() -> None:
    """Hides Lightning's information messages and the warnings listed above; errors and other warnings stay."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """`hush` until the end of the block."""
    levels = {name: logging.getLogger(name).level for name in _LEVELS}
    with warnings.catch_warnings():
        hush()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
