"""Whether a permutation leaves a network's outputs as they are."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from transfuse.alignment.calls import tensors_in
from transfuse.alignment.specification import Permutation, Specification
from transfuse.models.predict import evaluating
from transfuse.types import TransfuseError

_TOLERANCE = {torch.float64: 1e-9}
_LOW = 1e-4  # float32


class AlignmentError(TransfuseError):
    """A permutation that should change nothing changes what the network computes."""


def verify(network: nn.Module, specification: Specification, inputs: Tensor, generator: torch.Generator) -> None:
    """Tries a random permutation of all symbols.

    Raises:
        AlignmentError: an output changes by more than 1e-4 (float64: 1e-9) times the largest one; names the symbols
            that change it.
    """
    permutation = specification.random(generator)
    if deviation(network, specification, permutation, inputs) <= 1.0:
        return
    guilty = []
    for symbol, within in specification.families():
        names = {symbol.name, *(inner.name for inner in within)}
        alone = specification.identity() | {name: order for name, order in permutation.items() if name in names}
        if deviation(network, specification, alone, inputs) > 1.0:
            guilty.append(symbol.name)
    named = guilty or list(specification.symbols)
    raise AlignmentError(
        f"Permuting {' and '.join(named)} changes the network's outputs: an operation on the way is not seen, or its "
        f"rule is wrong. Hold these units: align.spec={{{','.join(f'{name}:fixed' for name in named)}}}"
    )


@torch.no_grad()
def deviation(network: nn.Module, specification: Specification, permutation: Permutation, inputs: Tensor) -> float:
    """Largest change of an output over what is tolerated; above 1 the network computes something else."""
    permuted = copy.deepcopy(network)
    permuted.load_state_dict(specification.apply(network.state_dict(), permutation))
    with evaluating(network), evaluating(permuted):
        before, after = list(tensors_in(network(inputs))), list(tensors_in(permuted(inputs)))
    worst = 0.0
    for one, other in zip(before, after, strict=True):
        if one.is_floating_point():
            scale = float(one.abs().max()) * _TOLERANCE.get(one.dtype, _LOW)
            worst = max(worst, float((one - other).abs().max()) / max(scale, torch.finfo(one.dtype).tiny))
    return worst
