"""The neural meta learner of stacking: one hidden layer, trained by Lightning.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), F = M*C features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transfuse.randomness import global_stream
from transfuse.strategy.cross_fit import folds
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.meta_features import linear_outputs, log_features
from transfuse.strategy.output_fusion.meta_linear import deviations
from transfuse.strategy.predictions import Predictions
from transfuse.training.settings import Training
from transfuse.types import EmptyTaskError, Split, TaskKind

HIDDEN, DROPOUT = 32, 0.1
LR = 1e-2
_INNER = 5  # a fifth of the fit data decides when training stops


class MlpStack(Combiner):
    """`W0 x + V relu(U x' + a) + b`, with x' the standardized log-features x.

    Args:
        kind: of the task.
        prior_CF: W0; where it is not zero, V starts at zero and the stack as `W0 x`.
        location_F: means of the features.
        scale_F: their deviations.
        unit_C: units of the outputs: 1 but for regression.
        bias: whether there are `a` and `b`.
        generator: of the initial weights.
    """

    prior_CF: Tensor
    location_F: Tensor
    scale_F: Tensor
    unit_C: Tensor

    def __init__(
        self,
        kind: TaskKind,
        prior_CF: Tensor,
        *,
        location_F: Tensor,
        scale_F: Tensor,
        unit_C: Tensor,
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(kind)
        buffers = {"prior_CF": prior_CF, "location_F": location_F, "scale_F": scale_F, "unit_C": unit_C}
        for name, values in buffers.items():
            self.register_buffer(name, values.float())
        num_outputs, num_features = prior_CF.shape
        with global_stream(generator):
            self.hidden = nn.Linear(num_features, HIDDEN, bias=bias)
            self.dropout = nn.Dropout(DROPOUT)
            self.out = nn.Linear(HIDDEN, num_outputs, bias=bias)
        if bool(prior_CF.any()):
            nn.init.zeros_(self.out.weight)
            if bias:
                nn.init.zeros_(self.out.bias)

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The stack's logits (N, C)."""
        features_NF = log_features(logits_MNC, self.kind)
        base_NC = linear_outputs(features_NF, self.prior_CF, torch.zeros_like(self.unit_C))
        standard_NF = ((features_NF - self.location_F) / self.scale_F).to(self.hidden.weight.dtype)
        correction_NC: Tensor = self.out(self.dropout(self.hidden(standard_NF).relu())) * self.unit_C
        outputs_NC: Tensor = base_NC + correction_NC.to(base_NC.dtype)
        return outputs_NC.log_softmax(dim=-1) if self.kind == "classification" else outputs_NC


def fit_mlp(predictions: Predictions, prior_CF: Tensor, *, penalty: float, bias: bool) -> MlpStack:
    """Trains an `MlpStack` by AdamW with weight decay `penalty`; a fifth of the examples decides when to stop.

    Raises:
        NeedsContextError: outside of a run.
        EmptyTaskError: fewer than 5 examples are labelled.
    """
    fit, task = predictions.trainer, predictions.task
    from transfuse.training.fusion import FusionModule

    assert task is not None, "a run has tasks"
    train, validation = _inner_splits(predictions, task.name)
    features_NF = log_features(train.inputs.double().transpose(0, 1), predictions.kind)
    ones_C = torch.ones(len(prior_CF), dtype=torch.float64)
    stack = MlpStack(
        predictions.kind,
        prior_CF,
        location_F=features_NF.mean(dim=0),
        scale_F=deviations(features_NF),
        unit_C=deviations(train.targets[task.name]) if predictions.kind == "regression" else ones_C,
        bias=bias,
        generator=predictions.generator,
    )
    settings = Training(
        epochs=200, batch_size=32, optimizer="adamw", lr=LR, weight_decay=penalty, schedule="constant", patience=10
    )
    module = FusionModule(stack, task, settings)
    seed = int(torch.randint(2**62, (1,), generator=predictions.generator))
    result = fit(module, train, validation, settings=settings, seed=seed, name=f"meta learner for {task.name}")
    trained = result.network
    assert isinstance(trained, MlpStack)
    trained.requires_grad_(False)
    trained.diagnostics["fusion/epochs"] = float(result.best_epoch)
    return trained


def _inner_splits(predictions: Predictions, task: str) -> tuple[Split, Split]:
    """Four fifths of the labelled examples to fit on, one to stop by; inputs are the members' outputs (N, M, C)."""
    labels = predictions.truth
    known_N = labels >= 0 if predictions.kind == "classification" else ~labels.isnan().any(dim=1)
    index = known_N.nonzero().squeeze(1)
    if len(index) < _INNER:
        raise EmptyTaskError(f"`learner: mlp` needs at least {_INNER} labelled examples. Found {len(index)}.")
    targets = labels[index] if predictions.kind == "classification" else labels[index].float()
    inputs_NMC = predictions.logits_MNC[:, index].transpose(0, 1).float().contiguous()
    everything = Split(inputs=inputs_NMC, targets={task: targets}, ids=index)
    folds_N = folds(targets, len(index), _INNER, predictions.generator)
    return everything.select(folds_N > 0), everything.select(folds_N == 0)
