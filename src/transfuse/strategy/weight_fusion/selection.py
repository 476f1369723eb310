"""Which tensors are fused: `fuse`, `only` and `skip`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from transfuse.suggest import nearest
from transfuse.types import HyperparameterError

HEADS = "heads."


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Names of tensors that are fused; all others come from the base, else from the first model.

    Attributes:
        only: fnmatch patterns; where there are any, a tensor must match one.
        skip: fnmatch patterns of tensors that are left out.
        heads: whether the tensors of heads (`heads.*`) are fused.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    heads: bool = True

    def of(self, keys: Iterable[str]) -> frozenset[str]:
        """The keys that are fused.

        Raises:
            HyperparameterError: a pattern matches no key.

        Example:
            >>> sorted(Selection(skip=("*.bias",)).of(["a.weight", "a.bias", "heads.y.weight"]))
            ['a.weight', 'heads.y.weight']
        """
        keys = list(keys)
        for name, patterns in (("only", self.only), ("skip", self.skip)):
            for pattern in patterns:
                if not _matching([pattern], keys):
                    raise HyperparameterError(
                        f"`{name}` should match names of tensors. Found `{name} = {pattern}`, which matches none."
                        f"{nearest(pattern, keys)}"
                    )
        chosen = _matching(self.only, keys) if self.only else set(keys)
        chosen -= _matching(self.skip, keys)
        return frozenset(key for key in chosen if self.heads or not key.startswith(HEADS))


def _matching(patterns: Sequence[str], keys: Sequence[str]) -> set[str]:
    return {key for key in keys if any(fnmatchcase(key, pattern) for pattern in patterns)}
