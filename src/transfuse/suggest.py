"""Nearest names for what a user mistyped, and readable messages for what Hydra could not compose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

CONF = Path(__file__).parent / "conf"  # in a wheel; in a checkout the configs lie beside `src`
if not CONF.is_dir():
    CONF = Path(__file__).parents[2] / "conf"

_COMPONENTS = ("weights/",)  # parts that strategies share; no strategies


def nearest(name: str, known: Iterable[str], parent: str = "") -> str:
    """` Did you mean ...?`, or the list of what there is where nothing is near."""
    names = list(known)
    prefix = f"{parent}." if parent else ""
    close = get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(prefix + match for match in close)}?"
    if not names:
        return f" `{parent}` has no keys of its own." if parent else ""
    return f" Known: {', '.join(prefix + known for known in sorted(names))}."


def explain(error: Exception, primary: str = "config") -> str:
    """What is wrong with an override that Hydra refused, with the nearest names.

    Args:
        error: of Hydra or OmegaConf.
        primary: name of the primary config: its keys are what a command has.
    """
    text = str(error).strip()
    option = re.search(r"Could not find '([^']+)'", text)
    if option:
        return _unknown_option(option.group(1), text)
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return _unknown_key(key.group(1), primary)
    cause = f"\n{error.__cause__}" if error.__cause__ is not None else ""
    return text + cause


def _unknown_option(path: str, text: str) -> str:
    """`strategy/output_fusion/averge`: a group that exists, an option that does not."""
    group, _, option = path.partition("/")
    if option.startswith(_COMPONENTS):
        group, _, option = path.rpartition("/")
    listed = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)  # what Hydra sees, a user's own options among it
    known = sorted({*options(CONF / group), *listed})
    if group == "strategy":
        known = [name for name in known if "/" in name and not name.startswith(_COMPONENTS)]
    if not known or option in known:
        return text
    parts = {name.rpartition("/")[2]: name for name in known}
    if option in parts:
        return f"`{group}={option}` is no option of the group `{group}`. Did you mean {parts[option]}?"
    return f"`{group}={option}` is no option of the group `{group}`.{nearest(option, known)}"


def _unknown_key(key: str, primary: str) -> str:
    """`training.lrr` or `stratgy`: a key that no config has."""
    head, _, rest = key.partition(".")
    head = head.partition("@")[0]
    if primary != "config" or head not in _groups():
        return f"`{key}` is no key of the config.{nearest(head, _top(primary))}"
    fields = _fields(head)
    having = [option for option, names in fields.items() if rest in names]
    if having:
        listed = ", ".join(f"{head}={option}" for option in having)
        return f"`{key}` is no key of the chosen option of `{head}`. It is one of {listed}."
    mapping, _, name = rest.rpartition(".")
    if any(mapping in names for names in fields.values()):
        return f"`{head}.{mapping}` is a mapping of your own. Write '{head}.{mapping}={{{name}: ...}}'."
    known = sorted({field for names in fields.values() for field in names})
    return f"`{key}` is no key of the config.{nearest(rest, known, parent=head)}"


def _groups() -> list[str]:
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and not folder.name.startswith("_"))


def _top(primary: str) -> list[str]:
    """The keys of a primary config; of a run's also the groups."""
    import yaml

    keys = set(yaml.safe_load((CONF / f"{primary}.yaml").read_text())) - {"defaults"}
    return sorted(keys | set(_groups()) if primary == "config" else keys - {"hydra"})


def options(folder: Path) -> Iterator[str]:
    """The options of a group, nested ones with their folders: `output_fusion/average`."""
    for file in sorted(folder.rglob("*.yaml")):
        yield file.relative_to(folder).with_suffix("").as_posix()


def _fields(group: str) -> dict[str, list[str]]:
    """Option of a group -> its keys, nested ones joined by dots."""
    import yaml

    folder = CONF / group
    return {
        option: list(_flat(yaml.safe_load((folder / f"{option}.yaml").read_text()) or {})) for option in options(folder)
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if key in ("defaults", "_target_"):
            continue
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
