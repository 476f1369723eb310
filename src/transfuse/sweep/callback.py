"""Hydra's callback: it remembers which sweep has begun, so that the command can finish it however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

VARIABLE = "TRANSFUSE_SWEEP"  # environment variable with the folder of the sweep under way


class SweepCallback(Callback):
    """Notes the sweep's folder in the environment of the process that started it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before any job."""
        os.environ[VARIABLE] = str(Path(config.hydra.sweep.dir).absolute())
