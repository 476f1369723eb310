"""The contract of weight fusions: several models of one architecture become one network of that architecture.

Two abstract kinds derive from it: `TensorFusion` works tensor by tensor, `NetworkFusion` judges whole networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from transfuse.base_models.model import Description
from transfuse.models.batch_norm import full_batches, has_batch_norm, reestimate
from transfuse.models.predict import predict
from transfuse.strategy.base import Context, Strategy
from transfuse.strategy.weight_fusion.parts import Parts, heads_apart
from transfuse.strategy.weight_fusion.requirements import check_architecture, check_base, check_count, check_tasks
from transfuse.strategy.weight_fusion.selection import HEADS, Selection
from transfuse.types import Development, HyperparameterError, NeedsContextError, ProblemKind

BatchNormMode = Literal["reestimate", "average", "keep"]
Fused = Literal["backbone", "all"]
Need = Literal["required", "optional", "unused"]
_MODES = ("reestimate", "average", "keep")


@dataclass(frozen=True, kw_only=True)
class WeightFusion(Strategy):
    """A way to turn state dicts of one architecture into one.

    Class attributes:
        base: whether the method uses the weights that all models started from.
        least: smallest number of models.
        most: largest number of models, or None.
        needs: what `merged` lacks where state dicts alone do not suffice, for its message.
        instead: a method for which they do.
        align_models: whether `align` may permute the models first.

    Attributes:
        batch_norm: running statistics after the fusion: `reestimate` on training data, `average` over members by the
            law of total variance, or `keep` those of the base, else of the first model.
        fuse: `all` tensors, or the `backbone` alone: each task then keeps the head of a model of that task, the first
            one. None: all where the models have the same tasks, else the backbone.
        only: fnmatch patterns; where there are any, only tensors that match one are fused.
        skip: fnmatch patterns of tensors that are not fused. What is not fused comes from the base, where the method
            has one, else from the first model.
    """

    family: ClassVar[str] = "weight_fusion"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"single_task", "multi_task", "transfer"})
    base: ClassVar[Need] = "unused"
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    needs: ClassVar[str] = "the networks and labelled validation data"
    instead: ClassVar[str] = "uniform_soup"
    align_models: ClassVar[bool] = True

    batch_norm: BatchNormMode = "reestimate"
    fuse: Fused | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fuse not in (None, "backbone", "all"):
            raise HyperparameterError(f"`fuse` should be backbone, all or null. Found `fuse = {self.fuse}`.")
        if self.batch_norm not in _MODES:
            raise HyperparameterError(
                f"`batch_norm` should be one of {', '.join(_MODES)}. Found `batch_norm = {self.batch_norm}`."
            )

    def merged(
        self,
        state_dicts: Sequence[Mapping[str, Any]],
        base: Mapping[str, Any] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
        masks: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The fused state dict, where state dicts alone suffice: see `TensorFusion.merged`.

        Raises:
            NeedsContextError: they do not.
        """
        raise NeedsContextError(
            f"{self.name} needs {self.needs}; state dicts alone do not suffice. Run it as strategy={self.name}, or "
            f"take method={self.instead}."
        )

    def check(self, development: Development, base_models: Description) -> None:
        """Number of models, one architecture, a base where it is needed, heads for all tasks."""
        super().check(development, base_models)
        check_count(self.name, len(base_models), self.least, self.most)
        check_architecture(self.name, base_models.members)
        if self.base == "required":
            check_base(self.name, base_models)
        check_tasks(self.name, development, base_models.members, fuse=self.fuse)
        self._check_patterns(base_models)

    @property
    def uses_base(self) -> bool:
        """Whether the method reads the weights that all models started from."""
        return self.base != "unused"

    @property
    def selection(self) -> Selection:
        """Which tensors are fused, of those that a state dict has."""
        return Selection(only=tuple(self.only), skip=tuple(self.skip), heads=self.fuse != "backbone")

    def settle(
        self, context: Context, parts: Parts, fused: Mapping[str, Tensor], num_fused: int
    ) -> tuple[nn.Module, str]:
        """The network of the fused weights, with its running statistics.

        Args:
            context: of the run.
            parts: the members.
            fused: the fused tensors.
            num_fused: how many sets of weights went into them; statistics of a single one are its own.

        Returns:
            The network, and how its statistics were made: `none` where it has no BatchNorm or nothing was fused.
        """
        network = parts.network(fused)
        if num_fused < 2 or not has_batch_norm(network):
            return network, "none"
        if self.batch_norm == "reestimate":
            measure_statistics(context, network)
        return network, self.batch_norm

    def _check_patterns(self, base_models: Description) -> None:
        """Raises where a pattern of `only` or `skip` matches no tensor: not after hours of training."""
        if not (self.only or self.skip) or base_models.build is None:
            return
        separate = heads_apart(base_models.members, self.fuse)
        keys = base_models.build().state_dict()
        self.selection.of([key for key in keys if not (separate and key.startswith(HEADS))])


def measure_statistics(context: Context, network: nn.Module) -> None:
    """Running statistics of BatchNorm from one pass over the training data, in place."""
    batches = full_batches(
        context.development.train.inputs, context.training.batch_size, context.generator("weight_fusion/batch_norm")
    )
    reestimate(network, network.modules(), batches)


def predictions(context: Context, network: nn.Module) -> dict[str, Tensor]:
    """Task -> (N, C) outputs on the validation split."""
    return predict(network, context.development.validation.inputs)
