"""What a weight fusion says about its members, as tables: geometry of their weights, scores along the paths between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from transfuse.evaluation.tables import write_table


def write_weight_tables(folder: Path, diagnostics: Mapping[str, Any], members: Sequence[str]) -> None:
    """Writes what the record's diagnostics of a weight fusion hold, into `folder`; nothing for other strategies.

    * `weight_geometry.csv`: a row a tensor and member: norm of its task vector (of its weights where there is no common
      start), norm of the base, mean cosine over pairs of members, share of elements whose signs disagree.
    * `weight_cosines.csv`: cosine of each pair of members, over all tensors.
    * `sign_conflicts.csv`, of methods that trim or elect: a row a tensor, all first: share of elements whose signs
      disagree in the task vectors and in what trimming leaves of them, share of its mass that the election loses.
    * `paths.csv`: scores at the points of the straight path between two members.
    """
    geometry, barrier = diagnostics.get("geometry"), diagnostics.get("barrier")
    interference = diagnostics.get("interference")
    if geometry:
        columns = ("vectors", "tensor", "elements", "member", "norm", "base_norm", "mean_cosine", "sign_conflict")
        write_table(folder / "weight_geometry.csv", columns, _geometry(geometry, members))
        pairs = combinations(range(len(members)), 2)
        cosines = [(members[i], members[j], geometry["cosines"][i][j]) for i, j in pairs]
        write_table(folder / "weight_cosines.csv", ("first", "second", "cosine"), cosines)
    if interference:
        shares = ("elements", "sign_conflict", "sign_conflict_trimmed", "mass_lost")
        found = (interference["total"], *interference["tensors"])
        rows = [(row["name"], *(row[name] for name in shares)) for row in found]
        write_table(folder / "sign_conflicts.csv", ("tensor", *shares), rows)
    if barrier:
        write_table(folder / "paths.csv", ("task", "metric", "first", "second", "t", "value"), _paths(barrier, members))


def _geometry(geometry: Mapping[str, Any], members: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for row in (geometry["total"], *geometry["tensors"]):
        for member, norm in zip(members, row["norms"], strict=True):
            shared = (row["base_norm"], row["mean_cosine"], row["sign_conflict"])
            yield geometry["vectors"], row["name"], row["elements"], member, norm, *shared


def _paths(barrier: Mapping[str, Any], members: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for path in barrier["paths"]:
        first, second = (members[index] for index in path["models"])
        for task, found in path["scores"].items():
            for metric, values in found.items():
                for point, value in enumerate(values):
                    yield task, metric, first, second, point / (len(values) - 1), value
