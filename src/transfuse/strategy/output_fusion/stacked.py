"""Several networks of one architecture as one: their weights stacked, so that one operation serves all of them.

Dimensions in tensor names: K networks, N examples, F features, H units, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, linear

from transfuse.models.network import Backbone, Head, Network

Layer = Callable[[Tensor], Tensor]

# What a tensor between two layers is: the inputs; the inputs flattened, (N, F), still the same for all networks; all
# networks' channels side by side, (N, K * channels, height, width); each network's features, (K, N, F).
Stage = Literal["inputs", "flat", "channels", "features"]

_ELEMENTWISE = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU)
_IDLE = (nn.Identity, nn.Dropout)  # in evaluation mode
_WITH_MODE = (nn.Dropout, nn.BatchNorm2d)


class Stacked:
    """Networks of one architecture in evaluation mode, without gradients: inputs (N, ...) to {task: (K, N, C)}.

    The first linear layer is one wide layer, later ones are batched products; convolutions run in K groups. Weights are
    copies that know when they are out of date: after an in-place change of a parameter or a buffer (`load_state_dict`,
    an optimizer's step), and after a new one took its place. Writing through `parameter.data` goes unnoticed, and hooks
    on modules inside of the networks do not run.

    Args:
        networks: that are `alike`.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._slots = [
            (tensors, name, tensor, tensor.data_ptr(), tensor._version)
            for module in _modules(networks)
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
            if tensor is not None
        ]
        with torch.inference_mode(False), torch.no_grad():
            self._layers, stage = _backbone(networks)
            self._heads = {task: _heads(networks, task, stage) for task in networks[0].heads}

    @property
    def current(self) -> bool:
        """Whether the copied weights still are the networks' weights."""
        return all(
            tensors[name] is tensor and tensor.data_ptr() == address and tensor._version == version
            for tensors, name, tensor, address, version in self._slots
        )

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Outputs (K, N, C) of every task."""
        hidden = inputs
        for layer in self._layers:
            hidden = layer(hidden)
        return {task: head(hidden) for task, head in self._heads.items()}


def alike(networks: Iterable[nn.Module]) -> list[Network] | None:
    """The networks, where `Stacked` can run them as one; None where it does not know their architecture.

    It knows a `Network` whose backbone is a chain of linear layers, convolutions, BatchNorm, max-pooling, dropout and
    activations (`model=mlp` and `model=cnn`), the same for all networks.

    Example:
        >>> task = Task(name="y", kind="classification", outputs=3)
        >>> networks = [build_mlp(input_shape=(4,), tasks=(task,)).eval() for _ in range(5)]
        >>> Stacked(alike(networks))(torch.zeros(2, 4))["y"].shape
        torch.Size([5, 2, 3])
    """
    found: list[Network] = []
    for network in networks:
        if type(network) is not Network or type(network.backbone) is not Backbone:
            return None
        found.append(network)
    # the text of a network has the types and sizes of all its layers
    layouts = {(str(network), tuple(network.state_dict())) for network in found}
    return found if len(layouts) == 1 and _is_known(found[0]) else None


def can_stack(networks: Sequence[Network]) -> bool:
    """Whether networks that are `alike` are in a state to be stacked: evaluation mode, one dtype, one device."""
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    places = {(tensor.dtype, tensor.device) for tensor in tensors if tensor.is_floating_point()}
    # tensors made in inference mode do not count their changes
    return len(places) == 1 and not any(tensor.is_inference() for tensor in tensors)


def is_convolutional(network: Network) -> bool:
    """Whether the backbone has convolutions."""
    return any(type(layer) is nn.Conv2d for layer in _chain(network))


def with_mode(networks: Sequence[Network]) -> list[nn.Module]:
    """The modules that act differently in training mode."""
    return [module for module in _modules(networks) if type(module) in _WITH_MODE]


def _modules(networks: Iterable[Network]) -> Iterator[nn.Module]:
    for network in networks:
        yield from network.modules()


def _chain(network: Network) -> list[nn.Module]:
    """The layers of the backbone in the order of the forward pass; containers are opened."""
    backbone = network.backbone
    return [layer for part in (backbone.stem, *backbone.stages, backbone.neck) for layer in _opened(part)]


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for part in module:
            yield from _opened(part)
    else:
        yield module


def _is_known(network: Network) -> bool:
    stage: Stage | None = "inputs"
    for layer in _chain(network):
        stage = _after(layer, stage) if stage is not None else None
    heads = network.heads.values()
    return stage in ("flat", "features") and all(type(h) is Head and type(h.linear) is nn.Linear for h in heads)


def _after(layer: nn.Module, stage: Stage) -> Stage | None:
    """What a layer makes of a stage; None where it is unknown there. Subclasses may compute anything: unknown."""
    found: Stage | None = None
    if type(layer) in _IDLE or type(layer) in _ELEMENTWISE or (type(layer) is nn.MaxPool2d and stage == "channels"):
        found = stage
    elif type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1) and stage != "features":
        found = "features" if stage == "channels" else "flat"
    elif type(layer) is nn.Linear and stage in ("flat", "features"):
        found = "features"
    elif type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros" and stage != "features":
        found = None if stage == "flat" else "channels"
    elif type(layer) is nn.BatchNorm2d and layer.running_mean is not None and layer.affine and stage == "channels":
        found = "channels"
    return found


def _backbone(networks: Sequence[Network]) -> tuple[list[Layer], Stage]:
    """The stacked layers, and what they end in."""
    stage: Stage = "inputs"
    layers = []
    for modules in zip(*map(_chain, networks), strict=True):
        if type(modules[0]) not in _IDLE:
            layers.append(_layer(modules, stage))
        after = _after(modules[0], stage)
        assert after is not None
        stage = after
    return layers, stage


def _layer(modules: Sequence[nn.Module], stage: Stage) -> Layer:
    first = modules[0]
    if isinstance(first, nn.Linear):
        return _linear([module for module in modules if isinstance(module, nn.Linear)], stage)
    if isinstance(first, nn.Conv2d):
        return _conv([module for module in modules if isinstance(module, nn.Conv2d)], stage)
    if isinstance(first, nn.BatchNorm2d):
        return _norm([module for module in modules if isinstance(module, nn.BatchNorm2d)])
    if isinstance(first, nn.Flatten) and stage == "channels":
        # (N, K * channels, height, width) -> (K, N, F)
        return lambda hidden: hidden.reshape(len(hidden), len(modules), -1).transpose(0, 1)
    return first.forward


def _linear(modules: Sequence[nn.Linear], stage: Stage) -> Layer:
    weight_KHF = torch.stack([module.weight for module in modules])
    units, features = weight_KHF.shape[1:]
    none_H = torch.zeros_like(weight_KHF[0, :, 0])
    biases: list[Tensor] = [none_H if module.bias is None else module.bias for module in modules]
    if stage == "flat":
        wide_XF, bias_X = weight_KHF.reshape(-1, features), torch.cat(biases)
        # [W_1; W_2; ..] x
        return lambda x_NF: linear(x_NF, wide_XF, bias_X).view(-1, len(modules), units).transpose(0, 1)
    weight_KFH, bias_K1H = weight_KHF.transpose(1, 2), torch.stack(biases)[:, None]
    # x_k W_k' + b_k
    return lambda x_KNF: torch.baddbmm(bias_K1H, x_KNF, weight_KFH)


def _conv(modules: Sequence[nn.Conv2d], stage: Stage) -> Layer:
    first = modules[0]
    weight = torch.cat(tuple(module.weight for module in modules))
    bias = None if first.bias is None else torch.cat([bias for module in modules if (bias := module.bias) is not None])
    groups = 1 if stage == "inputs" else len(modules)
    return lambda hidden: conv2d(hidden, weight, bias, first.stride, first.padding, first.dilation, groups)


def _norm(modules: Sequence[nn.BatchNorm2d]) -> Layer:
    mean, variance = (
        torch.cat([module.get_buffer(name) for module in modules]) for name in ("running_mean", "running_var")
    )
    weight, bias = (torch.cat([module.get_parameter(name) for module in modules]) for name in ("weight", "bias"))
    return lambda hidden: batch_norm(hidden, mean, variance, weight, bias, eps=modules[0].eps)


def _heads(networks: Sequence[Network], task: str, stage: Stage) -> Layer:
    heads = [head for network in networks if isinstance(head := network.heads[task], Head)]
    plain = _linear([head.linear for head in heads], stage)
    if heads[0].location is None:
        return plain
    location, scale = (
        torch.stack([head.get_buffer(name) for head in heads])[:, None] for name in ("location", "scale")
    )
    # y = location + scale * (W x + b)
    return lambda hidden: location + scale * plain(hidden)
