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


def explain(error: Exception) -> str:
    """What is wrong with an override that Hydra refused, with the nearest names."""
    text = str(error).strip()
    option = re.search(r"Could not find '([^']+)'", text)
    if option:
        return _unknown_option(option.group(1))
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return _unknown_key(key.group(1))
    cause = f"\n{error.__cause__}" if error.__cause__ is not None else ""
    return text + cause


def _unknown_option(path: str) -> str:
    """`strategy/output_fusion/averge`: a group that exists, an option that does not."""
    group, _, option = path.partition("/")
    known = list(options(CONF / group))
    if not known:
        return f"`{path}` is no config.{nearest(group, _groups())}"
    return f"`{group}={option}` is no option of the group `{group}`.{nearest(option, known)}"


def _unknown_key(key: str) -> str:
    """`training.lrr` or `stratgy`: a key that no config has."""
    head, _, rest = key.partition(".")
    head = head.partition("@")[0]
    if head not in (*_groups(), "seed"):
        return f"`{key}` is no key of the config.{nearest(head, [*_groups(), 'seed'])}"
    having = [option for option, fields in _fields(head).items() if rest in fields]
    if having:
        listed = ", ".join(f"{head}={option}" for option in having)
        return f"`{key}` is no key of the chosen option of `{head}`. It is one of {listed}."
    known = sorted({field for fields in _fields(head).values() for field in fields})
    return f"`{key}` is no key of the config.{nearest(rest, known, parent=head)} A new key needs a + before it."


def _groups() -> list[str]:
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and not folder.name.startswith("_"))


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
