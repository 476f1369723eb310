"""Several networks of one architecture as one module whose weights have a member dimension.

Dimensions in tensor names: M members, N examples.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from transfuse.models.batch_norm import has_batch_norm
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError


class Stacked(nn.Module):
    """M networks that are run by one vectorized call.

    Args:
        networks: that `check_together` accepts; copied.

    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.num_members = len(networks)
        # the first network, with (M, ...) leaves in place of its own: names stay
        self.network = copy.deepcopy(networks[0])
        weights, buffers = stack_module_state(list(networks))
        replaced: dict[int, nn.Parameter] = {}
        for name, parameter in list(self.network.named_parameters(remove_duplicate=False)):
            if name in weights:
                replaced[id(parameter)] = nn.Parameter(weights[name].detach())
            owner, _, leaf = name.rpartition(".")
            self.network.get_submodule(owner).register_parameter(leaf, replaced[id(parameter)])
        for name, values in buffers.items():
            owner, _, leaf = name.rpartition(".")
            self.network.get_submodule(owner).register_buffer(leaf, values)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task -> (M, N, C) of inputs (M, N, ...): examples of each member's own."""
        return self._run(inputs, 0)

    def on_shared(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task -> (M, N, C) of inputs (N, ...): the same examples for all members."""
        return self._run(inputs, None)

    def member_state(self, index: int) -> dict[str, Tensor]:
        """State dict of member `index`, owning its tensors."""
        return {name: values[index].detach().clone() for name, values in self.network.state_dict().items()}

    def _run(self, inputs: Tensor, examples: int | None) -> dict[str, Tensor]:
        leaves = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        outputs: dict[str, Tensor] = vmap(self._member, in_dims=(0, examples), randomness="different")(leaves, inputs)
        return outputs

    def _member(self, leaves: dict[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = functional_call(self.network, leaves, (inputs,))
        return outputs


def check_together(networks: Sequence[nn.Module], settings: Training) -> None:
    """Raises `HyperparameterError` unless the networks can be trained in one vectorized step."""
    if settings.patience is not None:
        raise HyperparameterError(
            f"`base_models.train = together` needs members that train equally long, each keeping its best epoch. "
            f"Found `training.patience = {settings.patience}`. Set training.patience=null."
        )
    layouts = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    for index, layout in enumerate(layouts):
        different = sorted(name for name in {*layouts[0], *layout} if layouts[0].get(name) != layout.get(name))
        if different:
            raise HyperparameterError(
                f"`base_models.train = together` needs members of one architecture. Found {different[0]} of shape "
                f"{_shape(layouts[0].get(different[0]))} in the first and {_shape(layout.get(different[0]))} in member "
                f"{index}. Did you mean base_models.train=one_by_one?"
            )
    if has_batch_norm(networks[0]):
        raise HyperparameterError(
            "`base_models.train = together` cannot follow BatchNorm's running statistics. "
            "Found a network that keeps them. Did you mean base_models.train=one_by_one?"
        )


def _shape(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(tuple(shape))
