"""What is added to Hydra's command line: globs over nested options, and where a repeated run is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from transfuse.suggest import CONF, options
from transfuse.types import ConfigError

_RUN_FOLDER = "hydra.run.dir=${paths.outputs}/runs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"


def completed(arguments: Sequence[str]) -> list[str]:
    """The command line that Hydra gets.

    `strategy=glob(weight_fusion/*)` is written out as choices, since Hydra's own glob sees the options of one folder.
    With `--config-path` the run folder is added: a run's own config does not hold it.

    Example:
        >>> completed(["-m", "strategy=glob(multi_task/joint*)", "seed=0,1"])
        ['-m', 'strategy=multi_task/joint_sum', 'seed=0,1']

    Raises:
        ConfigError: no option matches a glob.
    """
    given = [_expanded(item) if "=glob(" in item and "/" in item else item for item in arguments]
    repeated = any(item in ("--config-path", "-cp") or item.startswith("--config-path=") for item in given)
    if repeated and not any(item.startswith("hydra.run.dir=") for item in given):
        given.append(_RUN_FOLDER)
    return given


def _expanded(argument: str) -> str:
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:  # Hydra tells what is wrong with it
        return argument
    glob = override.value()
    if not isinstance(glob, Glob) or not any("/" in pattern for pattern in glob.include):
        return argument
    matches: Iterable[str] = glob.filter(list(options(CONF / override.key_or_group)))
    if not matches:
        raise ConfigError(f"`{argument}` matches no option. `transfuse --help` lists them.")
    return f"{override.key_or_group}={','.join(matches)}"
