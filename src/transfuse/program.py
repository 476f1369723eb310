"""`transfuse.run`: a run from a program or a notebook, with the overrides of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from transfuse import experiment
from transfuse.config import absolute, read
from transfuse.suggest import CONF, explain
from transfuse.tracking import RunRecord
from transfuse.types import ConfigError


def run(overrides: Sequence[str] = ()) -> RunRecord:
    """One run, as `transfuse <overrides>` does it.

    Args:
        overrides: as on the command line, such as `["data=digits", "strategy=output_fusion/average", "seed=1"]`.

    Returns:
        The record, also written to `<paths.outputs>/runs/<date>/<time>/record.json`.

    Raises:
        TransfuseError: bad input; nothing is written then.

    Example:
        >>> record = run(["strategy=output_fusion/average", "base_models.count=3"])  # doctest: +SKIP
        >>> record.metrics["test/accuracy"]  # doctest: +SKIP
        0.964
    """
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
    except HydraException as error:
        raise ConfigError(explain(error)) from error
    now = datetime.now()
    folder = absolute(config.paths.outputs) / "runs" / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S-%f}"
    settings = read(config, folder)
    prepared = experiment.prepare(settings)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(dict(settings.plain), sort_keys=False))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return experiment.execute(prepared)
