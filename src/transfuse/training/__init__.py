"""All training: Lightning modules, and `fit`, the only place that builds a Trainer.

`Training` and `Devices` are plain settings; everything else is imported on first use, because it loads Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from transfuse.training.settings import Devices, Training

if TYPE_CHECKING:
    from transfuse.training.averaged import AveragedModule as AveragedModule
    from transfuse.training.base import BaseModule as BaseModule
    from transfuse.training.coefficients import EntropyModule as EntropyModule
    from transfuse.training.coefficients import SoupModule as SoupModule
    from transfuse.training.fit import Fit as Fit
    from transfuse.training.fit import FitResult as FitResult
    from transfuse.training.fit import Fitting as Fitting
    from transfuse.training.fusion import FusionModule as FusionModule
    from transfuse.training.multi_task import MultiTaskModule as MultiTaskModule
    from transfuse.training.plan import ParameterGroup as ParameterGroup
    from transfuse.training.plan import Phase as Phase
    from transfuse.training.plan import Plan as Plan
    from transfuse.training.together import TogetherModule as TogetherModule
    from transfuse.training.transfer import TransferModule as TransferModule

_LAZY = {
    "AveragedModule": "averaged",
    "BaseModule": "base",
    "EntropyModule": "coefficients",
    "Fit": "fit",
    "FitResult": "fit",
    "Fitting": "fit",
    "FusionModule": "fusion",
    "MultiTaskModule": "multi_task",
    "ParameterGroup": "plan",
    "Phase": "plan",
    "Plan": "plan",
    "SoupModule": "coefficients",
    "TogetherModule": "together",
    "TransferModule": "transfer",
}

__all__ = [
    "AveragedModule",
    "BaseModule",
    "Devices",
    "EntropyModule",
    "Fit",
    "FitResult",
    "Fitting",
    "FusionModule",
    "MultiTaskModule",
    "ParameterGroup",
    "Phase",
    "Plan",
    "SoupModule",
    "TogetherModule",
    "Training",
    "TransferModule",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'transfuse.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"transfuse.training.{_LAZY[name]}"), name)
