"""Predictions on the test split, from the members' stored ones where the strategy combines outputs.

Dimensions in tensor names: M members, N examples, C classes (labels, targets).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModel
from transfuse.models.predict import predict
from transfuse.strategy.base import FusedModel
from transfuse.types import PredictionError, Split


class TestPredictor(Protocol):
    """Base models as `evaluation` sees them: the only place that has test inputs to give them."""

    def test_logits(self, test: Split) -> dict[str, Tensor]:
        """Task -> (M, N, C) float32 outputs of all members, stored or computed now."""

    def __getitem__(self, index: int, /) -> BaseModel:
        """Member `index`."""


def predictions_on(
    fused: FusedModel, test: Split, base_models: TestPredictor | None, *, batch_size: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs on the test split, and the members' where they are made of them.

    With `fused.combiners` the members' stored outputs are combined, without a forward pass of any member.

    Returns:
        Task -> (N, C), or (M, N, C) for a report about members (`fused.network` is None); and task -> (M, N, C) of all
        base models, empty where nothing is read of them.

    Raises:
        PredictionError: an output is not finite; the message names the task and the first example's id.
    """
    members: dict[str, Tensor] = {}
    if fused.combiners is not None:
        members = _members(base_models, test)
        outputs = _combined(fused.combiners, members)
    elif fused.network is not None:
        outputs = predict(fused.network, test.inputs, batch_size=batch_size)
    else:
        members = _members(base_models, test)
        outputs = {task: logits_MNC[list(fused.members)] for task, logits_MNC in members.items()}
    for task, values in outputs.items():
        _require_finite(task, values, test.ids)
    return outputs, members


@torch.no_grad()
def _combined(combiners: Mapping[str, nn.Module], logits_by_task: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {task: combiner.eval()(logits_by_task[task]).float() for task, combiner in combiners.items()}


def _members(base_models: TestPredictor | None, test: Split) -> dict[str, Tensor]:
    if base_models is None:
        raise PredictionError("The fused model is made of its members' predictions, and there are no base models.")
    return base_models.test_logits(test)


def _require_finite(task: str, outputs: Tensor, ids_N: Tensor) -> None:
    finite = outputs.isfinite().all(-1)
    if bool(finite.all()):
        return
    *member, example = (~finite).nonzero()[0].tolist()
    whose = f"Member {member[0]}" if member else "The fused model"
    raise PredictionError(
        f"{whose} predicts NaN or infinity for task {task}: first at the test example with id {int(ids_N[example])}. "
        f"Did training diverge?"
    )
