"""Which tensor of a network a source key names: wrapper prefixes, then a map of regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from transfuse.types import KeyMapError

KeyMap = Sequence[Mapping[str, str]]
_RULE = '{"pattern": regular expression, "replace": text}'

# DataParallel and DDP, Lightning modules, torch.compile, our own backbone, our own Lightning modules
PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.", "network.")


def match_names(source_keys: Iterable[str], target_keys: Iterable[str], key_map: KeyMap | None) -> dict[str, str]:
    """Source key -> name of the tensor in the network that it stands for (which may not exist there).

    Prefixes that *every* key shares are stripped on both sides; then the rules of `key_map` rename source names, the
    first that matches; then a prefix that only the network has (`backbone.` for the state dict of a bare backbone) is
    put back if more names exist with it. Nothing is matched by position or by size.

    Args:
        source_keys: of the source's state dict.
        target_keys: of the network's state dict.
        key_map: rules `{"pattern": ..., "replace": ...}`, applied by `re.sub` to the stripped source name.

    Raises:
        KeyMapError: when a rule is no such rule or renames nothing, or two source keys land on one name.
    """
    names, stripped = _strip(list(source_keys))
    targets, _ = _strip(list(target_keys))
    renamed = _rename(names, key_map or ())
    # "b." and "a.b." for the stripped prefixes "a.", "b."
    tails = list(accumulate(reversed(stripped), lambda tail, prefix: prefix + tail))
    existing = set(targets.values())
    best = max(
        ("", *tails, "backbone."), key=lambda prefix: sum(prefix + name in existing for name in renamed.values())
    )
    originals = {name: key for key, name in targets.items()}
    matched = {key: originals.get(best + name, best + name) for key, name in renamed.items()}
    _require_one_each(matched)
    return matched


def _strip(keys: list[str]) -> tuple[dict[str, str], list[str]]:
    """Key -> key without the prefixes that all share, and these prefixes from the outermost on."""
    names, stripped = list(keys), []
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(prefix) for name in names]
        stripped.append(prefix)
    return dict(zip(keys, names, strict=True)), stripped


def _rename(names: Mapping[str, str], key_map: KeyMap) -> dict[str, str]:
    if isinstance(key_map, (str, Mapping)) or not isinstance(key_map, Sequence):
        raise KeyMapError(f"`key_map` should be a list of rules, {_RULE} each. Found {type(key_map).__name__}.")
    rules = [_compile(rule) for rule in key_map]
    applied = [False] * len(rules)
    renamed = {}
    for key, name in names.items():
        index = next((i for i, (pattern, _) in enumerate(rules) if pattern.search(name)), None)
        if index is None:
            renamed[key] = name
            continue
        applied[index] = True
        pattern, replacement = rules[index]
        renamed[key] = pattern.sub(replacement, name)
    for rule, used in zip(key_map, applied, strict=True):
        if not used:
            raise KeyMapError(
                f"`{rule['pattern']}` in `key_map` renames none of the {len(names)} source keys, such as "
                f"{', '.join(f'`{name}`' for name in list(names.values())[:3])}. Rules before it may have taken them."
            )
    return renamed


def _compile(rule: Mapping[str, str]) -> tuple[re.Pattern[str], str]:
    if not isinstance(rule, Mapping) or set(rule) != {"pattern", "replace"}:
        raise KeyMapError(f"A rule of `key_map` has the fields `pattern` and `replace`. Found {rule}.")
    pattern, replacement = rule["pattern"], rule["replace"]
    if not isinstance(pattern, str) or not isinstance(replacement, str):
        raise KeyMapError(f"A rule of `key_map` holds two texts, {_RULE}. Found {dict(rule)}.")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise KeyMapError(f"`{pattern}` in `key_map` is no regular expression: {error}.") from error
    try:
        compiled.sub(replacement, "")  # the replacement is read even where nothing matches
    except (re.error, IndexError) as error:
        raise KeyMapError(f"`{replacement}` in `key_map` cannot replace `{pattern}`: {error}.") from error
    return compiled, replacement


def _require_one_each(matched: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for key, name in matched.items():
        if name in first:
            raise KeyMapError(f"The source keys `{first[name]}` and `{key}` both land on `{name}`. Check the key_map.")
        first[name] = key
