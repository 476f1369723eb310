"""What became of every tensor when weights were loaded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TensorPair:
    """A tensor of the source and the tensor of the network that its key names.

    Attributes:
        source: key in the source, as it was written there.
        target: key in the network's state dict.
        how: `equal` or `tied` (matched), the rule (adapted), or the reason (dropped).
        elements: of the target; 0 for integer buffers and for the further names of a tied tensor.
    """

    source: str
    target: str
    how: str
    elements: int


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Every source key and every target key exactly once (a source tensor that fills tied targets: once for each).

    Attributes:
        matched: loaded unchanged.
        adapted: loaded after a rule changed their shape: `input_channels` or `position_embedding`.
        dropped: both sides exist, but nothing was loaded; `how` says why.
        missing: target key -> elements, named by no source key.
        unexpected: source key -> elements, naming no target key.
        coverage: share of the elements of the network's backbone (all that is not in `head`) that are matched or
            adapted, in [0, 1].
        container: where the source held its state dict, such as `state_dict`; empty for a plain one.
        head: target keys of the network's head, or heads.
    """

    matched: tuple[TensorPair, ...]
    adapted: tuple[TensorPair, ...]
    dropped: tuple[TensorPair, ...]
    missing: Mapping[str, int]
    unexpected: Mapping[str, int]
    coverage: float
    container: str = ""
    head: frozenset[str] = frozenset()


def share_loaded(loaded: Iterable[str], elements: Mapping[str, int], head: Collection[str]) -> float:
    """Elements of loaded backbone tensors over those of all backbone tensors; 1 for a network without a backbone.

    Args:
        loaded: target keys.
        elements: of every target key.
        head: target keys that do not count.
    """
    hits = sum(elements[key] for key in loaded if key not in head)
    total = sum(count for key, count in elements.items() if key not in head)
    return hits / total if total else 1.0


def explain_coverage(report: LoadReport, min_coverage: float) -> str:
    """The message of a `CoverageError`: the five largest gaps, near-miss names, the likely remedy."""
    gaps = _not_loaded(report)
    largest = sorted(gaps, key=lambda key: -gaps[key][0])[:5]
    lines = [f"`{key}` ({gaps[key][0]:,} elements, {_why(key, gaps[key][1], report)})" for key in largest]
    return (
        f"Only {report.coverage:.1%} of the backbone's elements fit; `min_coverage = {min_coverage}`. Largest missing: "
        f"{'; '.join(lines)}. Did you forget a key_map?"
    )


def _not_loaded(report: LoadReport) -> dict[str, tuple[int, str]]:
    """Backbone targets that keep their weights: elements and the reason, empty for those that the source lacks."""
    gaps = {key: (elements, "") for key, elements in report.missing.items()}
    gaps |= {pair.target: (pair.elements, pair.how) for pair in report.dropped}
    return {key: gap for key, gap in gaps.items() if key not in report.head}


def _why(key: str, reason: str, report: LoadReport) -> str:
    if reason:
        return reason
    near = difflib.get_close_matches(key, report.unexpected, n=1)
    return f"nearest source key `{near[0]}`" if near else "no source key like it"
