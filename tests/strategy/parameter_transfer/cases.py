"""Every policy of parameter transfer with small fields, and problems for them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Source
from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.models.architecture import Architecture
from transfuse.strategy.base import Context
from transfuse.strategy.parameter_transfer import (
    BatchNormOnly,
    BatchSpectralShrinkage,
    BitFit,
    Delta,
    DiscriminativeLr,
    FeatureDistillation,
    FullFinetune,
    GradualUnfreeze,
    L2Sp,
    LinearProbe,
    Lora,
    LpFt,
    Lwf,
    ParameterTransfer,
    ShuffledWeights,
    SoupToSource,
    StatisticsOnly,
    Surgical,
)

POLICIES: dict[str, ParameterTransfer] = {
    "full_finetune": FullFinetune(),
    "batch_norm_only": BatchNormOnly(),
    "bitfit": BitFit(),
    "bss": BatchSpectralShrinkage(),
    "delta": Delta(),
    "discriminative_lr": DiscriminativeLr(),
    "feature_distillation": FeatureDistillation(),
    "gradual_unfreeze": GradualUnfreeze(),
    "l2_sp": L2Sp(),
    "linear_probe": LinearProbe(),
    "lora": Lora(rank=2),
    "lp_ft": LpFt(),
    "lwf": Lwf(),
    "shuffled_weights": ShuffledWeights(),
    "soup_to_source": SoupToSource(coefficients=(0.0, 0.5, 1.0)),
    "statistics_only": StatisticsOnly(),
    "surgical": Surgical(),
}
BUILT = {
    "mlp": partial(build_mlp, widths=[8, 6]),
    "cnn": partial(build_cnn, channels=[4, 6], batch_norm=True),
    "resnet": partial(build_resnet, channels=[4, 6], blocks=[1, 1]),
    "vit": partial(build_vit, width=8, heads=2, depth=1),
}


def _widened(split: Any, shape: tuple[int, ...]) -> Any:
    return replace(split, inputs=split.inputs.repeat(1, 4).reshape(len(split), *shape))


def problem(folder: Path, name: str = "cnn", build: Any = None, **training: Any) -> Context:
    """A transfer of toy data as 4 x 4 images, for a network with BatchNorm by default."""
    shape = (16,) if name == "mlp" else (1, 4, 4)
    source, target = make_development(SIGN), make_development(SIGN)
    source = replace(source, train=_widened(source.train, shape), validation=_widened(source.validation, shape))
    target = replace(
        target, train=_widened(target.train, shape), validation=_widened(target.validation, shape), source=source
    )
    setting = make_setting(target, **{"epochs": None, "steps": 6, "batch_size": 24, **training})
    make = build or BUILT[name]
    sizes = {each.name: each.default for each in signature(make).parameters.values() if each.default is not each.empty}
    architecture = Architecture(name=name, recipe={"_target_": name, **sizes}, make=make)
    return make_context(replace(setting, architecture=architecture), Source(), folder)


def start(policy: ParameterTransfer, context: Context) -> nn.Module:
    """The network before anything is trained."""
    source = context.base_models[policy.source]
    return policy.prepare(source, context.development, context.generator("init")).network


def trained(policy: ParameterTransfer, context: Context) -> dict[str, torch.Tensor]:
    """State dict after training."""
    network = policy.apply(context).network
    assert network is not None
    return dict(network.state_dict())


def moved(policy: ParameterTransfer, context: Context) -> set[str]:
    """State dict keys that training changed."""
    before = {key: value.clone() for key, value in start(policy, context).state_dict().items()}
    return {key for key, value in trained(policy, context).items() if not torch.equal(value, before[key])}
