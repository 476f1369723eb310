"""Axes of tensors as union-find nodes: which positions of which tensors must be permuted together.

An axis is free (an atom: any order will do, if all tensors that carry it are ordered alike), fixed (its order means
something), a product of factors from outer to inner (a flattened channel x position), or a concatenation of parts.
Atoms are refined where an operation asks for it: 64 features seen as 4 heads of 16. The inner factor then has one order
for each index of the outer one: heads may be swapped, and units within each head on their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

INHERENT = frozenset({"input", "output", "position"})  # nobody wonders why these are fixed


class Axis:
    """One node; `find` gives the node that stands for it.

    Attributes:
        size: number of positions.
        fixed: why it cannot be permuted; None while it can.
        parts: factors or pieces; empty for an atom.
        form: what the parts are. Of a stack (queries, keys and values in one tensor) each part is the axis that one
            index of another axis, the selector, gives.
        selector: of a stack.
        parent: the outer factor; this axis has one order for each of its indices.
        children: the axes whose parent this is.
    """

    def __init__(self, size: int, *, fixed: str | None = None, parent: Axis | None = None) -> None:
        self.size = size
        self.fixed = fixed
        self.parts: tuple[Axis, ...] = ()
        self.form: Literal["product", "concatenation", "stack"] = "product"
        self.selector: Axis | None = None
        self.parent = parent
        self.children: list[Axis] = []
        self.same: Axis | None = None
        if parent is not None:
            parent.children.append(self)


Axes = tuple[Axis, ...]


def fresh(size: int, parent: Axis | None = None) -> Axis:
    """A free axis; one position has only one order."""
    return still(size) if size <= 1 else Axis(size, parent=parent)


def still(size: int, reason: str = "position") -> Axis:
    """An axis that is not permuted."""
    return Axis(size, fixed=reason)


def find(axis: Axis) -> Axis:
    """The node that stands for this one."""
    while axis.same is not None:
        axis = axis.same
    return axis


def fix(axis: Axis, reason: str) -> None:
    """Holds an axis, its parts and what is ordered within it."""
    axis = find(axis)
    if axis.fixed is not None:
        return
    axis.fixed = reason
    for inner in (*axis.parts, *axis.children):
        fix(inner, reason)


def unite(first: Axis, second: Axis, place: str) -> None:
    """Both axes are permuted alike from now on; where that cannot be, both are fixed.

    Args:
        first: of `second.size` positions.
        second: of `first.size` positions.
        place: the operation that asks for it.
    """
    first, second = find(first), find(second)
    if first is second:
        return
    if first.fixed is not None or second.fixed is not None:
        reason = first.fixed or second.fixed or place
        fix(first, reason)
        fix(second, reason)
    elif "stack" in (first.form, second.form):
        fix(first, place)
        fix(second, place)
    elif first.parts and second.parts:
        _unite_parts(first, second, place)
    elif first.parts:
        _bind(second, first, place)
    elif second.parts:
        _bind(first, second, place)
    else:
        _unite_atoms(first, second, place)


def factors(axis: Axis) -> list[Axis]:
    """The axis as a product, outer to inner; a concatenation is one factor."""
    axis = find(axis)
    if not axis.parts or axis.form != "product":
        return [axis]
    return [factor for part in axis.parts for factor in factors(part)]


def pieces(axis: Axis) -> list[list[Axis]]:
    """The axis as a concatenation of products of atoms."""
    axis = find(axis)
    if not axis.parts or axis.form == "stack":
        return [[axis]]
    if axis.form == "concatenation":
        return [piece for part in axis.parts for piece in pieces(part)]
    inner = [pieces(part) for part in axis.parts]
    if all(len(found) == 1 for found in inner):
        return [[factor for found in inner for factor in found[0]]]
    if all(len(found) == 1 for found in inner[1:]):  # (A + B) x C = A x C + B x C
        return [piece + [factor for found in inner[1:] for factor in found[0]] for piece in inner[0]]
    fix(axis, "a concatenation inside of a product")
    return [[axis]]


def product(parts: Iterable[Axis]) -> Axis:
    """The flattened axis of several, outer to inner."""
    found: list[Axis] = []
    for factor in (each for part in parts for each in factors(part)):
        if factor.size == 1:
            continue
        if found and _is_plain(factor) and _is_plain(found[-1]):
            found[-1] = still(found[-1].size * factor.size, found[-1].fixed or "position")
        else:
            found.append(factor)
    return _joined(found, "product", math.prod(part.size for part in found))


def concatenation(parts: Sequence[Axis]) -> Axis:
    """The axis of several, one after the other."""
    found: list[Axis] = []
    for part in map(find, parts):
        if found and _is_plain(part) and _is_plain(found[-1]):
            found[-1] = still(found[-1].size + part.size, found[-1].fixed or "position")
        else:
            found.extend(part.parts if part.parts and part.form == "concatenation" else [part])
    return _joined(found, "concatenation", sum(part.size for part in found))


def split(axis: Axis, outer: int, place: str) -> tuple[Axis, Axis]:
    """The axis as `outer` blocks: the axis of blocks, and the one within each."""
    axis = find(axis)
    inner = axis.size // outer
    if axis.form == "stack" and axis.selector is not None and axis.fixed is None:
        halves = [split(part, outer, place) for part in axis.parts]
        return (
            _stacked([blocks for blocks, _ in halves], axis.selector),
            _stacked([within for _, within in halves], axis.selector),
        )
    if axis.fixed is None and (axis.parts or axis.parent is not None):
        fix(axis, place)
    if axis.fixed is not None:
        return still(outer, axis.fixed), still(inner, axis.fixed)
    blocks = fresh(outer)
    within = fresh(inner, blocks)
    _bind(axis, product((blocks, within)), place)
    return blocks, within


def cut(axis: Axis, sizes: Sequence[int], place: str) -> Axes:
    """The axis as pieces of these sizes, one after the other."""
    axis = find(axis)
    if axis.fixed is None and axis.form == "concatenation" and [find(part).size for part in axis.parts] == list(sizes):
        return axis.parts
    if axis.fixed is None and (axis.parts or axis.parent is not None):
        fix(axis, place)
    if axis.fixed is not None:
        return tuple(still(size, axis.fixed) for size in sizes)
    parts = tuple(fresh(size) for size in sizes)
    _bind(axis, concatenation(parts), place)
    return parts


def stack(axis: Axis, count: int, place: str) -> tuple[Axis, Axis]:
    """The axis as a selector of `count` indices, and the axis that each of them gives: queries, keys and values."""
    selector = still(count)
    return selector, _stacked(cut(axis, [find(axis).size // count] * count, place), selector)


def select(axes: Axes, dim: int, index: int, place: str) -> Axes:
    """The axes of one index along `dim`; an axis that is no selector is fixed, for its indices are told apart."""
    selector = find(axes[dim])
    fix(selector, place)
    left = axes[:dim] + axes[dim + 1 :]
    return tuple(_chosen(axis, selector, index) for axis in left)


def _chosen(axis: Axis, selector: Axis, index: int) -> Axis:
    found = factors(axis)
    if all(factor.selector is not selector for factor in found):
        return axis
    return product([factor.parts[index] if factor.selector is selector else factor for factor in found])


def _stacked(parts: Sequence[Axis], selector: Axis) -> Axis:
    axis = Axis(find(parts[0]).size)
    axis.parts, axis.form, axis.selector = tuple(parts), "stack", selector
    return axis


def nest(axis: Axis, blocks: Axis) -> None:
    """An atom has one order for each of `blocks`: the input channels of a grouped convolution's weights."""
    axis, blocks = find(axis), find(blocks)
    if axis.fixed is None and blocks.fixed is None and not axis.parts and axis.parent is None:
        axis.parent = blocks
        blocks.children.append(axis)


def refine(first: Sequence[Axis], second: Sequence[Axis], place: str) -> bool:
    """Unites two lists of factors of one product, splitting where one is coarser; False where they do not nest."""
    left, right = list(first), list(second)
    while left and right:
        one, other = find(left.pop(0)), find(right.pop(0))
        if one.size > other.size and one.size % other.size == 0:
            one, rest = split(one, other.size, place)
            left.insert(0, rest)
        elif other.size > one.size and other.size % one.size == 0:
            other, rest = split(other, one.size, place)
            right.insert(0, rest)
        if one.size != other.size:
            return False
        unite(one, other, place)
    return not left and not right


def _is_plain(axis: Axis) -> bool:
    return axis.fixed is not None and not axis.parts


def _joined(parts: Sequence[Axis], form: Literal["product", "concatenation"], size: int) -> Axis:
    if len(parts) == 1:
        return parts[0]
    axis = Axis(size)
    axis.parts, axis.form = tuple(parts), form
    if not parts or all(find(part).fixed is not None for part in parts):
        axis.fixed = next((reason for part in parts if (reason := find(part).fixed)), "position")
    return axis


def _unite_atoms(first: Axis, second: Axis, place: str) -> None:
    if (first.parent is None) != (second.parent is None):  # one order for all blocks, and one for each
        fix(first, place)
        fix(second, place)
        return
    first.same = second
    second.children.extend(first.children)
    if first.parent is not None and second.parent is not None:
        unite(first.parent, second.parent, place)


def _unite_parts(first: Axis, second: Axis, place: str) -> None:
    if first.form == second.form == "product":
        done = refine(factors(first), factors(second), place)
    else:
        done = first.form == second.form and [p.size for p in first.parts] == [p.size for p in second.parts]
        if done:
            for one, other in zip(first.parts, second.parts, strict=True):
                unite(one, other, place)
    if not done:
        fix(first, place)
        fix(second, place)


def _bind(atom: Axis, composite: Axis, place: str) -> None:
    leaves = [find(leaf) for piece in pieces(composite) for leaf in piece]
    if atom.parent is not None or atom in leaves:
        fix(atom, place)
        fix(composite, place)
        return
    for child in atom.children:
        fix(child, place)
    atom.same = find(composite)
