"""`output_fusion/gating`: how much a member counts depends on the example.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.randomness import global_stream
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.features import Reads
from transfuse.strategy.output_fusion.gate import Gate, GateNetwork, PackedGate
from transfuse.strategy.output_fusion.meta_features import log_features
from transfuse.strategy.predictions import Predictions
from transfuse.training.settings import Training
from transfuse.types import (
    Development,
    EmptyTaskError,
    HyperparameterError,
    IncompatibleStrategyError,
    PredictionError,
    Split,
    Task,
)

_COLLAPSE = 0.05  # nats: below it one member decides nearly every example
_STEPS, _LR, _WARM_UP = 150, 0.1, 0.3
_BETAS = (0.8, 0.9)  # gradients of a gate near 0 are small: a long memory of larger ones would hold it there


@dataclass(frozen=True, kw_only=True)
class Gating(OutputFusion):
    """`p(x) = sum_m g_m(x) p_m(x)`, `g(x) = softmax(G(features(x)))`; for regression `sum_m g_m(x) f_m(x)`.

    Minimises `mean loss + penalty ||G||^2` on validation data, by Adam over full batches from uniform gates: step 0 is
    the average. The biases of the gate are free, so that an infinite penalty gives the best constant weights, not the
    average. The members stay as they are. Features are centered, which changes nothing but the bias; those that are not
    log-probabilities are also divided by their deviation.

    Attributes:
        features: `outputs` (the members' log-probabilities), `input` (flattened) or `backbone` (the last features of
            member 0). The last two need the network to be run on test data, not only the members' stored outputs.
        hidden: width of a hidden ReLU layer; 0 for a linear gate.
        penalty: >= 0, on the sum of squared weights of the gate.

    Reference:
        Jacobs, Jordan, Nowlan & Hinton 1991, Adaptive mixtures of local experts.
    """

    features: Reads = "outputs"
    hidden: int = 0
    penalty: float = 0.1

    def __post_init__(self) -> None:
        if self.features not in ("outputs", "input", "backbone"):
            raise HyperparameterError(
                f"`features` should be outputs, input or backbone. Found `features = {self.features}`."
            )
        if not isinstance(self.hidden, int) or self.hidden < 0:
            raise HyperparameterError(f"`hidden` should be an integer >= 0. Found `hidden = {self.hidden}`.")
        if not 0 <= self.penalty < math.inf:
            raise HyperparameterError(f"`penalty` should be >= 0 and finite. Found `penalty = {self.penalty}`.")

    @property
    def fitted(self) -> bool:
        """Always."""
        return True

    @property
    def reads(self) -> Reads:
        """The features."""
        return self.features

    def check(self, development: Development, base_models: Description) -> None:
        """`backbone` needs a network that says what its backbone is."""
        super().check(development, base_models)
        if self.features == "backbone" and base_models.members[0].architecture == "custom":
            raise IncompatibleStrategyError(
                f"{self.name} with strategy.features=backbone needs networks with a backbone, and model=custom has "
                f"none that is known. Did you mean strategy.features=outputs?"
            )

    def combine(self, predictions: Predictions) -> Gate:
        """The gate, trained by the run's trainer."""
        known = _labelled(predictions)
        logits_MNC = known.logits_MNC.detach().float()
        features_NF = _features(known, self.features).detach().float()
        center_F, scale_F = features_NF.mean(dim=0), torch.ones(features_NF.shape[1])
        if self.features != "outputs" or known.kind == "regression":
            spread_F = features_NF.std(dim=0, correction=0)
            scale_F = torch.where(spread_F > 1e-6 * features_NF.abs().amax(dim=0), spread_F, 1.0)
        scaled_NF = (features_NF - center_F) / scale_F
        network = self._trained(known, logits_MNC, scaled_NF)
        with torch.no_grad():
            log_gates_NM = network(scaled_NF.double())
        return Gate(
            known.kind,
            reads=self.features,
            network=network,
            center=center_F,
            scale=scale_F,
            mean_gates=log_gates_NM.exp().mean(dim=0),
            diagnostics=_diagnostics(log_gates_NM),
        )

    def _trained(self, predictions: Predictions, logits_MNC: Tensor, scaled_NF: Tensor) -> GateNetwork:
        fit = predictions.trainer
        from transfuse.training import FusionModule

        num_members, num_examples, num_outputs = logits_MNC.shape
        with global_stream(predictions.generator):
            network = GateNetwork(scaled_NF.shape[1], num_members, hidden=self.hidden, penalty=self.penalty)
        packed = PackedGate(network, predictions.kind, (num_members, num_outputs))
        task = predictions.task or Task(name="task", kind=predictions.kind, outputs=num_outputs)
        settings = Training(
            epochs=None,
            steps=_STEPS,
            batch_size=-(-num_examples // fit.world_size) * fit.world_size,
            lr=_LR,
            warmup=_WARM_UP,
            keep="last",
        )
        targets = predictions.truth if predictions.kind == "classification" else predictions.truth.float()
        examples = Split(
            inputs=PackedGate.pack(logits_MNC, scaled_NF),
            targets={task.name: targets},
            ids=torch.arange(num_examples),
        )
        module = FusionModule(packed, task, settings, penalty=network.penalty, betas=_BETAS)
        seed = int(torch.randint(2**62, (1,), generator=predictions.generator))
        trained = fit(module, examples, examples, settings=settings, seed=seed, name=self.name).network
        assert isinstance(trained, PackedGate)
        return trained.network


def _labelled(predictions: Predictions) -> Predictions:
    """The examples with all their labels."""
    truth = predictions.truth
    known_N = truth >= 0 if predictions.kind == "classification" else ~truth.isnan().any(dim=1)
    if not known_N.any():
        raise EmptyTaskError("gating needs at least one labelled example. Found none.")
    return predictions.at(known_N.nonzero().squeeze(1), predictions.generator)


def _features(predictions: Predictions, reads: Reads) -> Tensor:
    if reads == "outputs":
        return log_features(predictions.logits_MNC, predictions.kind)
    if predictions.features_NF is None:
        raise PredictionError(f"gating with `features = {reads}` reads the examples' {reads} too. Found none.")
    return predictions.features_NF


def _diagnostics(log_gates_NM: Tensor) -> dict[str, float]:
    """Entropies in nats: of the gates, on average, and of the mean gate.

    `fusion/gate_collapsed` is 1 where one member decides nearly every example alone: the same one where the mean gate's
    entropy is small too, each time another one where it is large.
    """
    entropy = float(_entropy(log_gates_NM).mean())
    mean_entropy = float(_entropy(log_gates_NM.exp().mean(dim=0).log()))
    collapsed = log_gates_NM.shape[1] > 1 and entropy < _COLLAPSE
    return {
        "fusion/gate_entropy": entropy,
        "fusion/mean_gate_entropy": mean_entropy,
        "fusion/gate_collapsed": float(collapsed),
    }


def _entropy(log_gates_NM: Tensor) -> Tensor:
    return -(log_gates_NM.exp() * log_gates_NM).sum(dim=-1)
