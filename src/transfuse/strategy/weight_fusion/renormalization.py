"""Means and deviations of a network's units, and layers that are rescaled and shifted to have given ones.

Dimensions in tensor names: K models, R rows (examples x positions), U units of a layer.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from transfuse.models.network import head_names
from transfuse.models.predict import evaluating

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONSTANT = 1e-6  # of a unit's size: deviations below it are rounding


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and variance of each unit of a layer.

    Attributes:
        rows: how many values of a unit they are of.
        mean_U: (U,) float64.
        variance_U: (U,) float64, divided by the number of rows.
    """

    rows: int
    mean_U: Tensor
    variance_U: Tensor

    @property
    def deviation_U(self) -> Tensor:
        """The square root of the variance."""
        return self.variance_U.sqrt()

    @classmethod
    def of(cls, rows_RU: Tensor) -> Moments:
        """Of values (R, U)."""
        variance_U, mean_U = torch.var_mean(rows_RU.double(), dim=0, correction=0)
        return cls(rows=len(rows_RU), mean_U=mean_U, variance_U=variance_U)

    def joined(self, other: Moments) -> Moments:
        """Of the values of both."""
        rows = self.rows + other.rows
        share = other.rows / rows
        difference_U = other.mean_U - self.mean_U
        # m = m_a + q (m_b - m_a), v = (1 - q) v_a + q v_b + q (1 - q) (m_b - m_a)^2, q = n_b / (n_a + n_b)
        spread_U = share * (1 - share) * difference_U.square()
        return Moments(
            rows=rows,
            mean_U=self.mean_U + share * difference_U,
            variance_U=(1 - share) * self.variance_U + share * other.variance_U + spread_U,
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """Mean and deviation that units should have, (U,) float64 each."""

    mean_U: Tensor
    deviation_U: Tensor


@dataclass(frozen=True, kw_only=True)
class HiddenLayers:
    """What of a network can be renormalized.

    Attributes:
        repaired: names of layers, in the order in which they run.
        order: the same and those of BatchNorm layers, in the order in which they run.
        left: name of each other linear layer and convolution -> why it stays as it is.
    """

    repaired: tuple[str, ...]
    order: tuple[str, ...]
    left: Mapping[str, str]


@torch.no_grad()
def hidden_layers(network: nn.Module, inputs: Tensor, fused: Collection[str]) -> HiddenLayers:
    """The linear layers and convolutions of a network whose outputs are hidden, found by running it.

    Left as they are: heads, layers whose weight is not fused, those that BatchNorm follows (it sets their mean and
    deviation itself), and those of which one weight makes several outputs: no rescaling is right for all of these.

    Args:
        network: not changed.
        inputs: (N, ...), a few.
        fused: keys of tensors that were fused.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.BatchNorm1d(3))
        >>> found = hidden_layers(network, torch.zeros(4, 2), set(network.state_dict()))
        >>> found.repaired, found.left
        (('0',), {'2': 'followed by BatchNorm'})
    """
    modules = {name: module for name, module in network.named_modules() if isinstance(module, (*_LAYERS, _BatchNorm))}
    runs: list[str] = []
    outputs: dict[str, Tensor] = {}  # held, so that each is an object of its own
    normalized: set[str] = set()

    def note(name: str, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        runs.append(name)
        if isinstance(module, _BatchNorm):
            normalized.update(layer for layer, made in outputs.items() if made is given[0])
        else:
            outputs[name] = output

    _observe(network, modules, note, [inputs])
    layers = [name for name, module in modules.items() if not isinstance(module, _BatchNorm)]
    heads, calls = head_names(network), Counter(runs)
    uses = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))

    def reason(name: str) -> str | None:
        key = f"{name}.weight"
        if key in heads:
            return "head"
        if key not in fused:
            return "not fused"
        if calls[name] != 1 or uses[id(modules[name].weight)] > 1:
            return "does not run as a layer" if calls[name] == 0 else "makes several outputs"
        return "followed by BatchNorm" if name in normalized else None

    left = {name: why for name in layers if (why := reason(name)) is not None}
    order = tuple(name for name in dict.fromkeys(runs) if name not in left)
    return HiddenLayers(repaired=tuple(name for name in order if name in layers), order=order, left=left)


@torch.no_grad()
def unit_moments(
    network: nn.Module, layers: Iterable[str], inputs: Tensor, *, batch_size: int = 256
) -> dict[str, Moments]:
    """Mean and variance of what each unit of some layers gives, over examples and positions.

    Args:
        network: run in evaluation mode; not changed.
        layers: names of linear layers and convolutions.
        inputs: (N, ...), at least one.
        batch_size: examples at a time.

    Returns:
        Name of the layer -> moments of its U outputs or channels.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> layer.weight.data.fill_(2.0)
        tensor([[2.]])
        >>> found = unit_moments(nn.Sequential(layer), ["0"], torch.tensor([[1.0], [3.0]]))["0"]
        >>> found.mean_U.item(), found.deviation_U.item()
        (4.0, 2.0)
    """
    found: dict[str, Moments] = {}

    def add(name: str, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        units = -1 if isinstance(module, nn.Linear) else 1
        moments = Moments.of(output.movedim(units, -1).flatten(0, -2))
        found[name] = found[name].joined(moments) if name in found else moments

    modules = {name: network.get_submodule(name) for name in layers}
    if modules:
        _observe(network, modules, add, torch.split(inputs, batch_size))
    return found


def averages(moments_K: Sequence[Mapping[str, Moments]], shares_K: Sequence[float]) -> dict[str, Target]:
    """`sum_i c_i mean_i` and `sum_i c_i deviation_i` of each layer.

    Args:
        moments_K: of the same layers of K models.
        shares_K: K numbers >= 0 whose sum is 1.

    Reference:
        Jordan et al. 2023, 2211.08403, eq. 3 and 4.
    """
    found: dict[str, Target] = {}
    for name, first in moments_K[0].items():
        mean_U, deviation_U = torch.zeros_like(first.mean_U), torch.zeros_like(first.mean_U)
        for moments, share in zip(moments_K, shares_K, strict=True):
            mean_U = mean_U + share * moments[name].mean_U
            deviation_U = deviation_U + share * moments[name].deviation_U
        found[name] = Target(mean_U=mean_U, deviation_U=deviation_U)
    return found


def correction(found: Moments, target: Target) -> tuple[Tensor, Tensor]:
    """Scale s and shift t, (U,) each, so that `s y + t` has the target's mean and deviation where y has `found`.

    `s = deviation* / deviation`, `t = mean* - s mean`. A unit that is constant stays so (s = 1), with the target mean.

    Example:
        >>> found = Moments(rows=9, mean_U=torch.tensor([1.0, 3.0]), variance_U=torch.tensor([4.0, 0.0]))
        >>> correction(found, Target(mean_U=torch.tensor([5.0, 5.0]), deviation_U=torch.tensor([6.0, 6.0])))
        (tensor([3., 1.]), tensor([2., 2.]))
    """
    size_U = torch.maximum(found.mean_U.abs(), target.deviation_U)
    constant_U = found.deviation_U <= _CONSTANT * size_U
    # s = deviation* / deviation
    scale_U = (target.deviation_U / found.deviation_U.where(~constant_U, 1.0)).where(~constant_U, 1.0)
    return scale_U, target.mean_U - scale_U * found.mean_U


@torch.no_grad()
def renormalized(
    network: nn.Module,
    order: Sequence[str],
    targets: Mapping[str, Target],
    inputs: Tensor,
    renew: Callable[[nn.Module, nn.Module], None],
) -> nn.Module:
    """A copy of a network whose layers have the targets' means and deviations on `inputs`.

    Layer by layer from input to output, each measured when all before it are as they will be: what comes after a layer
    changes nothing before it, so that in the end every layer has its target. One pass over the inputs a layer.

    Args:
        network: not changed.
        order: names of layers, and of BatchNorm layers between them, in the order in which they run.
        targets: one a layer. A layer without a bias gets the target's deviation, not its mean.
        inputs: (N, ...).
        renew: called with the new network and a BatchNorm layer before which something changed.

    Returns:
        A new network of the same architecture.
    """
    network = copy.deepcopy(network)
    changed = False
    for name in order:
        layer = network.get_submodule(name)
        if not isinstance(layer, _LAYERS):
            if changed:
                renew(network, layer)
            continue
        scale_U, shift_U = correction(unit_moments(network, [name], inputs)[name], targets[name])
        changed = changed or bool((scale_U != 1).any() or (shift_U != 0).any())
        # s (W x + b) + t
        scale_UI = scale_U.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.weight.copy_(scale_UI * layer.weight)
        if layer.bias is not None:
            layer.bias.copy_(scale_U * layer.bias + shift_U)
    return network


def _observe(
    network: nn.Module,
    modules: Mapping[str, nn.Module],
    see: Callable[[str, nn.Module, tuple[Tensor, ...], Tensor], None],
    batches: Iterable[Tensor],
) -> None:
    """Runs a network in evaluation mode; `see` gets name, module, inputs and output of each run of a module."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, given, output: see(name, module, given, output)

    parameter = next(network.parameters(), None)
    handles: list[RemovableHandle] = []
    try:
        handles.extend(module.register_forward_hook(hook(name)) for name, module in modules.items())
        with evaluating(network):
            for batch in batches:
                device = batch.device if parameter is None else parameter.device
                with torch.autocast(device.type, enabled=False):
                    network(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
