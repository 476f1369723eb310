"""Terms that keep a transfer near its source, or its features in shape.

Dimensions in tensor names: N examples, F features, C channels or classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transfuse.training.plan import Penalty


def squared_distance(values: Mapping[str, Tensor], references: Mapping[str, Tensor]) -> Tensor:
    """`1/2 sum |w - w0|^2` over the names of `references`.

    Reference:
        Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional networks", 1802.01483.
    """
    squares = [(values[name] - start).square().sum() for name, start in references.items()]
    total: Tensor = torch.stack(squares).sum() if squares else torch.zeros(())
    return total / 2


def spectral_shrinkage(features_NF: Tensor, smallest: int) -> Tensor:
    """Sum of the `smallest` smallest squared singular values of a batch's features.

    Reference:
        Chen et al. 2019, "Catastrophic forgetting meets negative transfer: batch spectral shrinkage", NeurIPS.
    """
    total: Tensor = torch.linalg.svdvals(features_NF.float())[-smallest:].square().sum()
    return total


def behavior_distance(features: Tensor, references: Tensor, attention_C: Tensor | None = None) -> Tensor:
    """`1/2 C/(H W) sum_c a_c |F_c - F0_c|^2`, mean over the batch; with `a_c = 1/C` by default.

    Args:
        features: (N, C, ...) of the network; (N, C) features have H W = 1.
        references: the source's, of the same shape.
        attention_C: a_c, weights of the channels that sum to 1.

    Reference:
        Li et al. 2019, "DELTA: deep learning transfer using feature map with attention", 1901.09229.
    """
    difference_NCP = (features - references).flatten(2) if features.dim() > 2 else (features - references)[..., None]
    _, channels, positions = difference_NCP.shape
    squares_NC = difference_NCP.square().sum(2)
    weighted_N = squares_NC.sum(1) / channels if attention_C is None else squares_NC @ attention_C
    return 0.5 * channels / positions * weighted_N.mean()


def distillation_loss(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch.

    Args:
        student_NC: (N, C) logits.
        teacher_NC: (N, C) logits; no gradient flows into them.
        temperature: T > 0.

    Reference:
        Hinton et al. 2015, "Distilling the knowledge in a neural network", 1503.02531.

    Example:
        >>> logits_NC = torch.tensor([[1.0, 2.0]])
        >>> float(distillation_loss(logits_NC, logits_NC, 2.0))
        0.0
    """
    student_NC = torch.log_softmax(student_NC / temperature, dim=1)
    teacher_NC = torch.log_softmax(teacher_NC.detach() / temperature, dim=1)
    return temperature**2 * nn.functional.kl_div(student_NC, teacher_NC, reduction="batchmean", log_target=True)


class StartingPoint(Penalty):
    """`alpha/2 |w - w0|^2 + beta/2 |v|^2`: w came from the source, v did not.

    Args:
        starts: parameter -> w0.
        alpha: of what came from the source.
        others: parameters that did not.
        beta: of these.
    """

    def __init__(self, starts: Mapping[str, Tensor], alpha: float, others: tuple[str, ...], beta: float) -> None:
        super().__init__()
        self.names = tuple(starts)
        held = [nn.Parameter(value.detach().clone(), requires_grad=False) for value in starts.values()]
        self.starts = nn.ParameterList(held)
        self.alpha, self.others, self.beta = alpha, others, beta

    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term."""
        values = dict(network.named_parameters())
        near = squared_distance(values, dict(zip(self.names, self.starts, strict=True)))
        small = squared_distance(values, {name: torch.zeros_like(values[name]) for name in self.others})
        return self.alpha * near + self.beta * small


class SmallSingularValues(Penalty):
    """`eta sum sigma^2` over the `k` smallest singular values of the batch's features.

    Args:
        eta: factor.
        k: how many.
    """

    layers = ("backbone",)

    def __init__(self, eta: float, k: int) -> None:
        super().__init__()
        self.eta, self.k = eta, k

    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term."""
        return self.eta * spectral_shrinkage(seen["backbone"], self.k)


class NearSource(Penalty):
    """The features of some layers stay near those of the network as it was: `sum_j weight * distance(F_j, F0_j)`.

    Args:
        source: the network as it was; it is frozen here.
        layers: names of modules.
        weight: factor.
        normalize: `|F - F0|^2` of features of norm 1, summed; else DELTA's behavior distance.
        attention: layer -> (C,) weights of channels.
    """

    def __init__(
        self,
        source: nn.Module,
        layers: tuple[str, ...],
        weight: float,
        *,
        normalize: bool | None = None,
        attention: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.source = source.eval().requires_grad_(False)
        self.layers = layers
        self.weight, self.normalize = weight, normalize
        self.attention = dict(attention or {})

    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term."""
        references = self._references(inputs)
        terms = []
        for name in self.layers:
            features, reference = seen[name], references[name]
            if self.normalize is None:
                attention_C = self.attention.get(name)
                attention_C = None if attention_C is None else attention_C.to(features)
                terms.append(behavior_distance(features, reference, attention_C))
                continue
            features, reference = features.flatten(1), reference.flatten(1)
            if self.normalize:
                features = nn.functional.normalize(features, dim=1)
                reference = nn.functional.normalize(reference, dim=1)
            terms.append((features - reference).square().sum(1).mean())
        return self.weight * torch.stack(terms).sum()

    @torch.no_grad()
    def _references(self, inputs: Tensor) -> dict[str, Tensor]:
        """Layer -> the source's output, in evaluation mode whatever mode the training is in."""
        self.source.eval()
        found: dict[str, Tensor] = {}

        def see(name: str) -> object:
            return lambda layer, given, output: found.__setitem__(name, output)

        handles = [self.source.get_submodule(name).register_forward_hook(see(name)) for name in self.layers]  # type: ignore[arg-type]
        try:
            self.source(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found


class OldTask(Penalty):
    """`weight T^2 KL(old logits || new logits of the old head)` on the target's inputs: learning without forgetting.

    Args:
        source: the source's network, frozen here: its logits are the old ones, its heads the old heads.
        weight: factor.
        temperature: T.
    """

    layers = ("backbone",)

    def __init__(self, source: nn.Module, weight: float, temperature: float) -> None:
        super().__init__()
        self.source = source.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature

    def forward(self, network: nn.Module, inputs: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The term."""
        self.source.eval()
        with torch.no_grad():
            old = self.source(inputs)
        heads = self.source.get_submodule("heads")
        assert isinstance(heads, nn.ModuleDict)
        losses = [
            distillation_loss(head(seen["backbone"]), old[name], self.temperature) for name, head in heads.items()
        ]
        return self.weight * torch.stack(losses).sum()
