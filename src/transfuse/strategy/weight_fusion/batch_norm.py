"""Running statistics of BatchNorm after a fusion: measured anew on data, or averaged.

The statistics of the members belong to the members' weights; a fused network needs its own.
Dimensions in tensor names: K models, F features, N examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfuse.state_dict import StateDict
from transfuse.types import DataError


def average_statistics(state_dicts: Sequence[StateDict], pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """Statistics of the members' pooled activations, if each had seen as many examples.

    mean = mean_k m_k, variance = mean_k v_k + var_k m_k (law of total variance), in float64, rounded once.

    Args:
        state_dicts: K state dicts.
        pairs: key of each running mean -> key of its running variance.

    Returns:
        Both keys of each pair -> (F,) in the first model's type.

    Example:
        >>> first, second = ({"m": torch.tensor([m]), "v": torch.tensor([v])} for m, v in [(0.0, 1.0), (2.0, 3.0)])
        >>> average_statistics([first, second], {"m": "v"})
        {'m': tensor([1.]), 'v': tensor([3.])}
    """
    averaged: dict[str, Tensor] = {}
    for mean_key, variance_key in pairs.items():
        means_KF, variances_KF = _stacked(state_dicts, mean_key), _stacked(state_dicts, variance_key)
        first = state_dicts[0]
        averaged[mean_key] = means_KF.mean(0).to(first[mean_key].dtype)
        # mean(v) + var(m)
        variance_F = variances_KF.mean(0) + means_KF.var(0, correction=0)
        averaged[variance_key] = variance_F.to(first[variance_key].dtype)
    return averaged


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any module keeps running statistics."""
    return any(_keeps_statistics(module) for module in network.modules())


@torch.no_grad()
def reestimate(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Running statistics of the network on data: reset, then one pass.

    The unweighted mean over batches of the batch means and unbiased batch variances, which is PyTorch's cumulative
    average (`momentum=None`). All other modules are in evaluation mode: dropout is off.

    Args:
        network: is not changed.
        batches: inputs (N, ...), of equal size.

    Returns:
        Keys of running means and variances -> (F,); empty for a network without BatchNorm.

    Reference:
        Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", 1803.05407, sec. 3.2.
    """
    measured = deepcopy(network).eval()
    norms = {name: module for name, module in measured.named_modules() if _keeps_statistics(module)}
    if not norms:
        return {}
    for module in norms.values():
        module.reset_running_stats()
        module.momentum = None
        module.train()
    device = next(iter(norms.values())).running_mean.device
    for inputs in batches:
        measured(inputs.to(device))
    keys = [f"{name}.{statistic}" for name in norms for statistic in ("running_mean", "running_var")]
    return {key: measured.get_buffer(key) for key in (key.removeprefix(".") for key in keys)}


def full_batches(inputs: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches of one size; a last partial one is dropped unless it is the only one.

    Shuffled, because data that are sorted by class would leave the variance between classes out of every batch.

    Raises:
        DataError: when there are fewer than two examples.
    """
    num_examples = len(inputs)
    if num_examples < 2:
        raise DataError(
            f"BatchNorm statistics need at least 2 training examples. Found {num_examples}. "
            "Did you mean strategy.batch_norm=average?"
        )
    size = min(max(batch_size, 2), num_examples)
    order = torch.randperm(num_examples, generator=generator)
    return (inputs[order[start : start + size]] for start in range(0, num_examples - size + 1, size))


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _stacked(state_dicts: Sequence[StateDict], key: str) -> Tensor:
    device = state_dicts[0][key].device
    return torch.stack([state[key].to(device, torch.float64) for state in state_dicts])
