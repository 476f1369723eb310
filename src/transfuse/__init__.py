"""transfuse: which way of combining or reusing deep models is best for your data, by how much, and at what cost."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfuse.models.loading import load as load
    from transfuse.program import run as run
    from transfuse.report.compare import compare as compare
    from transfuse.strategy.multi_task import balance as balance
    from transfuse.strategy.output_fusion import fuse as fuse
    from transfuse.strategy.weight_fusion import merge as merge
    from transfuse.transferability import transferability as transferability

__version__ = "0.1.0"

if not (Path(__file__).parent / "conf").is_dir():  # a checkout: `pkg://transfuse.conf` lies beside src
    __path__.append(str(Path(__file__).parents[2]))

# name -> module; imported on first use, so that `import transfuse` loads neither torch nor Lightning
_PUBLIC = {
    "balance": "transfuse.strategy.multi_task",
    "compare": "transfuse.report.compare",
    "fuse": "transfuse.strategy.output_fusion",
    "load": "transfuse.models.loading",
    "merge": "transfuse.strategy.weight_fusion",
    "run": "transfuse.program",
    "transferability": "transfuse.transferability",
}

__all__ = ["__version__", "balance", "compare", "fuse", "load", "merge", "run", "transferability"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'transfuse' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
