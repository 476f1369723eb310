"""`weight_fusion/sce`: select elements that vary, weigh models by their energy, erase the minority's sign.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from transfuse.leaves import pairwise_sum
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.cut import Cut, everything
from transfuse.strategy.weight_fusion.election import Ballot, elect_and_merge
from transfuse.strategy.weight_fusion.interference import interference_of
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.trimming import largest, task_vectors
from transfuse.types import HyperparameterError


def variances(block: Block) -> Tensor:
    """(1, B) population variance of the task vectors over the models."""
    deltas_KB = task_vectors(block)
    num_models = len(deltas_KB)
    mean_B = deltas_KB[0].clone()
    for delta_B in deltas_KB[1:]:
        mean_B += delta_B
    squares_KB = deltas_KB.sub_(mean_B.div_(num_models)).square_()
    total_B = squares_KB[0]
    for square_B in squares_KB[1:]:
        total_B += square_B
    return total_B.div_(num_models).unsqueeze(0)


@dataclass(frozen=True, kw_only=True)
class Energies:
    """What SCE knows of one tensor.

    Attributes:
        cut: which elements are selected, ranked by variance.
        weights_K: the models' shares of the selected squares; None: all of them are 0.
    """

    cut: Cut
    weights_K: tuple[float, ...] | None = None

    def selected(self, block: Block) -> Tensor:
        """(K, B) task vectors of selected elements, zeros for others."""
        deltas_KB = task_vectors(block)
        if self.cut == everything(math.prod(block.shape)):
            return deltas_KB
        # a variance of 0 is never selected: 1 where it is kept, 0 elsewhere
        return deltas_KB.mul_(self.cut.trim(variances(block)[0], block.offset).sign_())


@dataclass(frozen=True, kw_only=True)
class SCE(TensorFusion):
    """`x = b + sum_i w_i d_i / sum_i w_i` over the models whose d_i has the sign of `sum_j d_j`, tensor by tensor.

    Select: only the floor(select * nonzero) elements of largest variance over the models, out of those whose variance
    is not 0. Calculate: w_i = mean(d_i^2) over the selected, divided by their sum. Erase: the minority's sign; a tie is
    plus.

    Attributes:
        select: in (0, 1], share of the elements that vary.

    Example:
        >>> models = [{"w": torch.tensor([2.0, 1.0])}, {"w": torch.tensor([1.0, -3.0])}]
        >>> SCE().merged(models, {"w": torch.zeros(2)})
        {'w': tensor([ 1.3333, -3.0000])}

    Reference:
        Wan et al. 2024, "FuseChat: knowledge fusion of chat models", 2408.07990, section 3.3.
    """

    base: ClassVar[Need] = "required"

    select: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.select <= 1:
            raise HyperparameterError(f"`select` should be in (0, 1]. Found `select = {self.select}`.")

    def survey(self, blocks: Blocks) -> Energies:
        """The selection, then the energies of what is selected."""
        energies = Energies(cut=self._cut(blocks))
        # w_i = mean(d_i^2), up to a common factor
        total_K = pairwise_sum([energies.selected(block).double().square_().sum(1) for block in blocks])
        total = float(total_K.sum())
        return Energies(cut=energies.cut, weights_K=tuple((total_K / total).tolist()) if total > 0 else None)

    def fuse_block(self, block: Block, survey: Energies) -> Tensor:
        """The base plus the weighted mean of what agrees, (B,)."""
        assert block.base_B is not None
        if survey.weights_K is None:
            return block.base_B.clone()
        return elect_and_merge(survey.selected(block), survey.weights_K, weigh="after").add_(block.base_B)

    def interference(self, context: Context, parts: Parts, measured: Measured) -> dict[str, Any]:
        """Sign conflicts before and after the selection, and the mass that the election loses."""
        return interference_of(self, context, parts, measured)

    def ballot(self, block: Block, survey: Energies) -> Ballot:
        """The selected task vectors; weights count after the election."""
        return Ballot(votes_KB=survey.selected(block), elect="mass")

    def _cut(self, blocks: Blocks) -> Cut:
        num_elements = blocks.values_K[0].numel()
        if self.select == 1:
            return everything(num_elements)
        varying = sum(_varying(block) for block in blocks)
        count = max(min(varying, 1), math.floor(self.select * varying))
        return largest([blocks], [[count]], variances)[0][0]


def _varying(block: Block) -> int:
    """How many elements differ between models."""
    values_KB = block.values_KB.cpu().numpy()
    return int(np.count_nonzero((values_KB[1:] != values_KB[0]).any(axis=0)))
