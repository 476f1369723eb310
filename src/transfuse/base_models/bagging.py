"""`base_models=bagging`: every member is trained on a sample of its own (Breiman 1996, "Bagging predictors")."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, require_count
from transfuse.base_models.recipe import Recipe
from transfuse.data.splits import count as share
from transfuse.data.splits import fingerprint
from transfuse.randomness import make_generator
from transfuse.types import Development, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Bagging(BaseModelRecipe):
    """Members that differ in initialization, batch order and training examples.

    Member i is trained on a bootstrap sample of the training split, drawn from a stream of its own. Validation data,
    scaling and everything that is predicted are those of the whole data.

    Attributes:
        count: number of members, >= 1. A pool of 3 is a prefix of the pool of 5.
        fraction: size of a sample relative to the training split, in (0, 1]; below 1 without replacement.
        replacement: whether an example may come several times; a full bootstrap sample then holds about 63 % of them.
        stratified: whether every class (or combination of the tasks' classes) keeps its share, and at least one
            example. Without a classification task it has no effect.
    """

    count: int = 5
    fraction: float = 1.0
    replacement: bool = True
    stratified: bool = True

    def __post_init__(self) -> None:
        require_count(self.count)
        if not 0 < self.fraction <= 1:
            raise HyperparameterError(f"`fraction` should be in (0, 1]. Found `fraction = {self.fraction}`.")
        if self.fraction == 1 and not self.replacement:
            raise HyperparameterError(
                f"`fraction` should be below 1 without replacement: every sample would be the whole training split. "
                f"Found `fraction = {self.fraction}`. Did you mean base_models=seeds?"
            )

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a sample; the sample's content decides the key."""
        return Members(recipes=tuple(self._member(setting, index) for index in range(self.count)))

    def _member(self, setting: Setting, index: int) -> Recipe:
        seed = setting.member_seed(index)
        development = setting.development
        sample_S = draw(
            len(development.train),
            fraction=self.fraction,
            replacement=self.replacement,
            strata_N=_strata(development) if self.stratified else None,
            generator=make_generator(seed, "bagging"),
        )
        train = development.train.select(sample_S)
        content = fingerprint(development.tasks, train, development.validation)
        resampled = replace(development, train=train, fingerprint=content)
        return replace(setting.recipe(f"bagging-{index}", seed=seed), development=resampled)


def draw(
    num: int, *, fraction: float, replacement: bool, strata_N: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Positions of a random sample, sorted.

    From each stratum of n examples, `fraction * n` (rounded half up, at least one) are drawn; without strata the whole
    is one stratum.

    Args:
        num: N, the number of examples, >= 1.
        fraction: in (0, 1].
        replacement: whether a position may come several times.
        strata_N: (N,) int64 stratum of each example, or None.
        generator: of the draw.

    Returns:
        (S,) int64 positions.

    Example:
        >>> draw(4, fraction=0.5, replacement=False, strata_N=torch.tensor([0, 0, 1, 1]),
        ...      generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    everything_N = torch.arange(num)
    labels_N = torch.zeros_like(everything_N) if strata_N is None else strata_N
    drawn = []
    for label in torch.unique(labels_N):
        members_n = everything_N[labels_N == label]
        size = max(1, share(fraction, len(members_n)))
        if replacement:
            at = torch.randint(len(members_n), (size,), generator=generator)
        else:
            at = torch.randperm(len(members_n), generator=generator)[:size]
        drawn.append(members_n[at])
    return torch.cat(drawn).sort().values


def _strata(development: Development) -> Tensor | None:
    """(N,) number of each example's combination of classes over the classification tasks; None without such a task."""
    names = [task.name for task in development.tasks if task.kind == "classification"]
    if not names:
        return None
    classes_NT = torch.stack([development.train.targets[name] for name in names], dim=1)
    strata_N: Tensor = torch.unique(classes_NT, dim=0, return_inverse=True)[1]
    return strata_N
