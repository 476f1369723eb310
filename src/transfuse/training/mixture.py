"""A network whose weights are a combination of several networks', as a function of the coefficients.

Dimensions in tensor names: K models, L mixed tensors, T tasks with a temperature.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


class WeightMixture(nn.Module):
    """`f(x; base_l + sum_i a_il values_il)` with the coefficients `a` as parameters.

    The coefficients (and the temperatures' logarithms) are all that its state dict holds. The network runs in
    evaluation mode: no dropout.

    Args:
        network: of the architecture, with the values of all that is not mixed; changed here, so hand over your own.
        values: name of each mixed parameter -> (K, ...) of the models.
        base: name -> tensor that is added; empty for nothing.
        start: of all coefficients; with `simplex` they start at 1 / K.
        per_tensor: whether each tensor has K coefficients of its own.
        simplex: whether coefficients are a softmax over models.
        temperatures: tasks whose logits are divided by a learned temperature, which starts at 1.
        batch_statistics: whether BatchNorm uses the statistics of the batch instead of the running ones.
    """

    raw: nn.Parameter

    def __init__(
        self,
        network: nn.Module,
        values: Mapping[str, Tensor],
        base: Mapping[str, Tensor],
        *,
        start: float,
        per_tensor: bool,
        simplex: bool,
        temperatures: tuple[str, ...] = (),
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        if batch_statistics:
            _forget_statistics(network)
        self.names = tuple(values)
        self.simplex = simplex
        self.batch_statistics = batch_statistics
        self._temperatures = temperatures
        self._network = (network.eval(),)  # in a tuple: its own parameters are none of this module's
        fixed = {name: value for name, value in _tensors(network).items() if name not in values}
        self._places = {
            "values": self._register("values", values),
            "base": self._register("base", base),
            "fixed": self._register("fixed", fixed),
        }
        num_models = len(next(iter(values.values())))
        columns = len(values) if per_tensor else 1
        self.raw = nn.Parameter(torch.full((num_models, columns), 0.0 if simplex else start))
        if temperatures:
            self.log_temperature_T = nn.Parameter(torch.zeros(len(temperatures)))

    @property
    def coefficients_KL(self) -> Tensor:
        """(K, L) coefficients of the mixed tensors, with a graph."""
        chosen = self.raw.softmax(dim=0) if self.simplex else self.raw
        return chosen.expand(-1, len(self.names))

    @property
    def by_name(self) -> dict[str, tuple[float, ...]]:
        """Name of each mixed tensor -> its K coefficients."""
        rows_LK = self.coefficients_KL.detach().double().cpu().T.tolist()
        return {name: tuple(row_K) for name, row_K in zip(self.names, rows_LK, strict=True)}

    @property
    def temperatures(self) -> dict[str, float]:
        """Task -> learned temperature."""
        if not self._temperatures:
            return {}
        return dict(zip(self._temperatures, self.log_temperature_T.detach().exp().tolist(), strict=True))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task -> (N, C) outputs of the mixed network; logits are divided by their temperature."""
        coefficients_KL = self.coefficients_KL
        base = self._tensors("base")
        mixed = {}
        for index, (name, values) in enumerate(self._tensors("values").items()):
            # base_l + sum_i a_il values_il
            total = torch.tensordot(coefficients_KL[:, index], values, dims=1)
            mixed[name] = base[name] + total if name in base else total
        outputs: dict[str, Tensor] = functional_call(self._network[0], {**self._tensors("fixed"), **mixed}, (inputs,))
        for index, task in enumerate(self._temperatures):
            outputs = outputs | {task: outputs[task] / self.log_temperature_T[index].exp()}
        return outputs

    def _register(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Keeps tensors as buffers that move along and are not saved; name -> name of the buffer."""
        places = {name: f"{kind}_{index}" for index, name in enumerate(tensors)}
        for name, tensor in tensors.items():
            self.register_buffer(places[name], tensor.detach().clone(), persistent=False)
        return places

    def _tensors(self, kind: str) -> dict[str, Tensor]:
        return {name: self.get_buffer(place) for name, place in self._places[kind].items()}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _forget_statistics(network: nn.Module) -> None:
    """BatchNorm without running statistics takes those of the batch, in evaluation mode too."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None
