"""From the composed config to typed values: the only module that knows OmegaConf and calls `instantiate`.

Everything wrong with a config is told here, by its full key and before anything is read, trained or written.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfuse.alignment import Matcher, Unaligned
from transfuse.conformity import conforms, floated, hints, readable, with_key
from transfuse.experiment import Run
from transfuse.models import build_custom
from transfuse.models.architecture import Architecture
from transfuse.models.sharing import HardSharing, Sharing
from transfuse.strategy.base import Strategy
from transfuse.strategy.weight_fusion import Aligned, WeightFusion
from transfuse.suggest import nearest
from transfuse.tracking import Tracker
from transfuse.types import ConfigError, HyperparameterError, MissingExtraError, Task

_GROUPS = (
    "data",
    "model",
    "base_models",
    "strategy",
    "align",
    "training",
    "trainer",
    "evaluation",
    "tracking",
    "paths",
)
_SET_BY_US = {"input_shape", "tasks"}  # arguments of a model that the problem gives
_EXTRAS = {"torchjd": "mtl"}  # optional packages whose classes a config may name, and our extra that installs them
_FREE = {"arguments"}  # fields whose content is the user's own
_ARCHITECTURES = Mapping[str, Architecture]  # the type of a field that names models of its own


def read(config: DictConfig, folder: Path, parent: Callable[[Tracker], str] | None = None) -> Run:
    """The run that a composed config describes.

    Args:
        config: composed by Hydra.
        folder: of the run.
        parent: for a job of a sweep: opens, or finds, the sweep's entry with a tracker.

    Raises:
        ConfigError: an unknown key, a missing value, a wrong type, or a value out of range; named by its full key.
    """
    plain = resolved(config)
    _check_top(plain)
    plain["paths"] = {key: str(absolute(path)) for key, path in plain["paths"].items()}
    built = {group: _built(plain[group], group) for group in _GROUPS if group not in ("model", "paths")}
    _check_tuned(built["evaluation"].tuned, plain)
    outputs = absolute(plain["paths"]["outputs"])
    tracker: Tracker = built["tracking"].at(outputs)
    return Run(
        data=built["data"],
        architecture=_architecture(plain["model"], "model"),
        base_models=built["base_models"],
        strategy=_aligned(built["strategy"], built["align"]),
        training=built["training"],
        devices=built["trainer"],
        evaluation=built["evaluation"],
        tracker=tracker,
        seed=plain["seed"],
        folder=folder,
        data_folder=absolute(plain["paths"]["data"]),
        store=absolute(plain["paths"]["store"]),
        refresh_before=_refresh_before(built["base_models"].refresh, folder),
        parent=None if parent is None else partial(parent, tracker),
        plain=plain,
    )


def _check_tuned(keys: Sequence[str], plain: Mapping[str, Any]) -> None:
    for key in keys:
        group, _, name = key.partition(".")
        if name not in plain[group]:
            raise ConfigError(f"`evaluation.tuned` names {key}.{nearest(name, plain[group], parent=group)}")


def _aligned(strategy: Strategy, align: Matcher | Unaligned) -> Strategy:
    """The strategy, of permuted models where `align` asks for it."""
    if isinstance(align, Unaligned):
        return strategy
    if not isinstance(strategy, WeightFusion):
        raise ConfigError(
            f"`align` permutes the models of a weight fusion. Found align={align.name} and strategy={strategy.name}. "
            "Did you mean align=none?"
        )
    return Aligned(inner=strategy, matcher=align)


def tracker_of(config: Any) -> Tracker:
    """The tracker that a config names, for what is tracked outside of a run."""
    plain = resolved(OmegaConf.create({"tracking": config.tracking, "paths": config.paths}))
    tracker: Tracker = _built(plain["tracking"], "tracking").at(absolute(plain["paths"]["outputs"]))
    return tracker


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, interpolations resolved; a missing value is a `ConfigError` with its key."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"`{key}` needs a value: {str(error).splitlines()[0]}.") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def absolute(path: str) -> Path:
    """An absolute path; `~` is the user's home."""
    return Path(path).expanduser().absolute()


def _check_top(plain: Mapping[str, Any]) -> None:
    known = (*_GROUPS, "seed")
    for key in plain:
        if key not in known:
            raise ConfigError(f"`{key}` is no key of the config.{nearest(key, known)}")
    for key in known:
        if key not in plain:
            raise ConfigError(f"The config has no `{key}`. Add it to the defaults list of your primary config.")
    if not isinstance(plain["seed"], int) or isinstance(plain["seed"], bool) or plain["seed"] < 0:
        raise ConfigError(f"`seed` should be an integer >= 0. Found `seed = {plain['seed']}`.")
    known_paths = ("outputs", "data", "store")
    for key, value in plain["paths"].items():
        if key not in known_paths:
            raise ConfigError(f"`paths.{key}` is no key of the config.{nearest(key, known_paths)}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"`paths.{key}` should be a folder. Found `paths.{key} = {value!r}`.")


def _built(node: Any, key: str) -> Any:
    """The object that a node describes, checked against its target's signature first."""
    checked = _checked(node, key)
    models = [name for name, hint in hints(_target(checked["_target_"], key)).items() if hint == _ARCHITECTURES]
    given = {name: _architectures(checked.pop(name), f"{key}.{name}") for name in models if name in checked}
    if not given:
        return _instantiated(checked, key)
    build = _instantiated({**checked, "_partial_": True}, key)
    try:
        return build(**given)
    except HyperparameterError as error:
        raise ConfigError(with_key(str(error), key)) from error


def _architectures(nodes: Mapping[str, Any], key: str) -> dict[str, Architecture]:
    """Options of the `model` group that a node names itself: they wait for the problem as `model` does."""
    return {name: _architecture(node, f"{key}.{name}") for name, node in nodes.items()}


def _instantiated(node: Mapping[str, Any], key: str) -> Any:
    try:
        return instantiate({"_convert_": "all", **node})
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, HyperparameterError):
            raise ConfigError(with_key(str(cause), _full_key(error, key))) from cause
        raise ConfigError(f"`{key}` cannot be built: {cause or error}") from error
    except HydraException as error:
        raise ConfigError(f"`{key}` cannot be built: {error}") from error


def _checked(node: Any, key: str) -> dict[str, Any]:
    """The node with its keys and types checked; integers become floats where floats are declared."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"`{key}` should be an option of its group (a mapping with `_target_`). Found {node!r}.")
    target = _target(node["_target_"], key)
    names = _parameters(target)
    types = hints(target)
    checked: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{key}.{name}"
        if str(name).startswith("_") and str(name).endswith("_"):
            checked[name] = value
        elif name not in names:
            raise ConfigError(f"`{full}` is no key of the config.{nearest(name, names, parent=key)}")
        elif isinstance(value, Mapping) and "_target_" in value:
            checked[name] = _checked(value, full)
        elif isinstance(value, list) and any(isinstance(item, Mapping) and "_target_" in item for item in value):
            checked[name] = [_checked(item, f"{full}.{index}") for index, item in enumerate(value)]
        elif name not in _FREE and name in types and not conforms(value, types[name]):
            raise ConfigError(f"`{full}` should be {readable(types[name])}. Found `{full} = {value!r}`.")
        else:
            checked[name] = floated(value, types.get(name))
    return checked


def _target(path: str, key: str) -> Any:
    try:
        return get_object(path)
    except Exception as error:
        package = path.partition(".")[0]
        if package in _EXTRAS and find_spec(package) is None:
            raise MissingExtraError(
                f"`{key}._target_` needs the package {package}. "
                f"Install it with: pip install 'transfuse[{_EXTRAS[package]}]'"
            ) from error
        reason = " ".join(str(error).split())
        raise ConfigError(f"`{key}._target_` names {path}, which cannot be imported: {reason}") from error


def _parameters(target: Any) -> tuple[str, ...]:
    given = () if inspect.isclass(target) else _SET_BY_US  # builders of networks are functions
    return tuple(name for name in inspect.signature(target).parameters if name not in given)


def _architecture(node: Any, key: str) -> Architecture:
    """An option of the `model` group: a recipe, and a builder that waits for the problem's shape and tasks."""
    shared = node.get("sharing") if isinstance(node, Mapping) else None
    checked = _checked({name: value for name, value in node.items() if name != "sharing"} if shared else node, key)
    name = str(checked["_target_"]).rpartition(".")[2].removeprefix("build_").lower()
    build = _instantiated({**checked, "_partial_": True}, key)

    def making(sharing: Sharing) -> Callable[..., Any]:
        def make(*, input_shape: tuple[int, ...], tasks: tuple[Task, ...], **sizes: Any) -> Any:
            try:
                return sharing.build(partial(build, **sizes), input_shape=input_shape, tasks=tasks)
            except HyperparameterError as error:
                raise ConfigError(with_key(str(error), key)) from error

        return make

    plain = Architecture(name=name, recipe=checked, make=making(HardSharing()))
    sharing = _built(shared, f"{key}.sharing") if shared else HardSharing()
    if isinstance(sharing, HardSharing):
        return plain
    if _target(checked["_target_"], key) is build_custom:
        raise ConfigError(
            f"`{key}.sharing` needs a network of one backbone and a head a task. Found {key}=custom and "
            f"sharing={sharing.name}. Did you mean sharing=hard? A module of your own shares as it likes."
        )
    return Architecture(name=name, recipe={**checked, "sharing": shared}, make=making(sharing), plain=plain)


def _full_key(error: InstantiationException, key: str) -> str:
    found = re.search(r"full_key: (\S+)", str(error))
    return f"{key}.{found.group(1)}" if found else key


def _refresh_before(refresh: bool, folder: Path) -> float:
    """With `refresh`, members are trained anew once a run; once a sweep, where the run is a job of one."""
    if not refresh:
        return 0.0
    sweep = folder.parent / "multirun.yaml"
    return sweep.stat().st_mtime if sweep.exists() else time.time()
