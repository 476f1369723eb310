"""Which tensor a source key names."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from transfuse.models.key_names import match_names
from transfuse.types import KeyMapError

TARGETS = ("backbone.stem.weight", "backbone.stem.bias", "heads.y.weight")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "network.", "module._orig_mod.", "model.module."]
)
def test_shared_prefixes_do_not_matter(prefix: str) -> None:
    assert match_names([prefix + name for name in TARGETS], TARGETS, None) == {prefix + name: name for name in TARGETS}


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "model.backbone."])
def test_a_bare_backbone_finds_its_place(prefix: str) -> None:
    keys = [prefix + name for name in ("stem.weight", "stem.bias")]
    assert match_names(keys, TARGETS, None) == dict(zip(keys, TARGETS[:2], strict=True))


@pytest.mark.parametrize(("source", "target"), list(product(["", "module.", "_orig_mod."], repeat=2)))
def test_prefixes_of_the_network_do_not_matter_either(source: str, target: str) -> None:
    keys, targets = [source + "fc.weight", source + "fc.bias"], [target + "fc.weight", target + "fc.bias"]
    assert match_names(keys, targets, None) == dict(zip(keys, targets, strict=True))


def test_a_prefix_that_is_part_of_the_networks_names_is_kept() -> None:
    assert match_names(["model.fc.weight"], ["model.fc.weight", "out.weight"], None) == {
        "model.fc.weight": "model.fc.weight"
    }


def test_a_prefix_that_only_some_keys_have_is_kept() -> None:
    assert match_names(["module.a", "b"], ["a", "b"], None) == {"module.a": "module.a", "b": "b"}


def test_the_first_rule_that_matches_wins() -> None:
    rules = [{"pattern": r"^enc\.", "replace": "backbone."}, {"pattern": r"^(\w+)\.", "replace": r"heads.\1."}]
    keys = ["module.enc.stem.weight", "module.y.weight"]
    assert match_names(keys, TARGETS, rules) == {keys[0]: "backbone.stem.weight", keys[1]: "heads.y.weight"}


def test_a_rule_that_renames_nothing_is_refused() -> None:
    with pytest.raises(KeyMapError) as caught:
        match_names(["a.weight", "b.weight"], TARGETS, [{"pattern": "^encoder", "replace": ""}])
    assert str(caught.value) == (
        "`^encoder` in `key_map` renames none of the 2 source keys, such as `a.weight`, `b.weight`. "
        "Rules before it may have taken them."
    )


def test_two_keys_on_one_target_are_refused() -> None:
    with pytest.raises(KeyMapError) as caught:
        match_names(["a.weight", "b.weight"], ["x.weight"], [{"pattern": "^[ab]", "replace": "x"}])
    assert str(caught.value) == (
        "The source keys `a.weight` and `b.weight` both land on `x.weight`. Check the key_map."
    )


def test_rules_are_checked() -> None:
    with pytest.raises(KeyMapError, match=r"A rule of `key_map` has the fields `pattern` and `replace`. Found {'from'"):
        match_names(["a"], ["a"], [{"from": "a", "to": "b"}])
    with pytest.raises(KeyMapError, match=r"`\(` in `key_map` is no regular expression: missing \), unterminated"):
        match_names(["a"], ["a"], [{"pattern": "(", "replace": ""}])


@pytest.mark.parametrize(
    ("key_map", "message"),
    [
        ({"pattern": "a", "replace": "b"}, "`key_map` should be a list of rules"),
        ("a", "`key_map` should be a list of rules"),
        (["a"], "A rule of `key_map` has the fields `pattern` and `replace`. Found a."),
        ([{"pattern": "a", "replace": None}], "A rule of `key_map` holds two texts"),
        ([{"pattern": "a", "replace": r"\1"}], r"`\1` in `key_map` cannot replace `a`: invalid group reference 1"),
        ([{"pattern": "a", "replace": r"\g<x>"}], r"`\g<x>` in `key_map` cannot replace `a`: "),
    ],
)
def test_what_is_no_key_map_is_named(key_map: Any, message: str) -> None:
    with pytest.raises(KeyMapError, match=re.escape(message)):
        match_names(["a.weight"], ["b.weight"], key_map)
