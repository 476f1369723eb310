"""Parameter transfer: start from the source model's weights."""

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.batch_norm_only import BatchNormOnly
from transfuse.strategy.parameter_transfer.bitfit import BitFit
from transfuse.strategy.parameter_transfer.bss import BatchSpectralShrinkage
from transfuse.strategy.parameter_transfer.delta import Delta
from transfuse.strategy.parameter_transfer.discriminative_lr import DiscriminativeLr
from transfuse.strategy.parameter_transfer.feature_distillation import FeatureDistillation
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.gradual_unfreeze import GradualUnfreeze
from transfuse.strategy.parameter_transfer.l2_sp import L2Sp
from transfuse.strategy.parameter_transfer.linear_probe import LinearProbe
from transfuse.strategy.parameter_transfer.lora import Lora
from transfuse.strategy.parameter_transfer.lp_ft import LpFt
from transfuse.strategy.parameter_transfer.lwf import Lwf
from transfuse.strategy.parameter_transfer.shuffled_weights import ShuffledWeights
from transfuse.strategy.parameter_transfer.soup_to_source import SoupToSource
from transfuse.strategy.parameter_transfer.statistics_only import StatisticsOnly
from transfuse.strategy.parameter_transfer.surgical import Surgical

__all__ = [
    "BatchNormOnly",
    "BatchSpectralShrinkage",
    "BitFit",
    "Delta",
    "DiscriminativeLr",
    "FeatureDistillation",
    "FullFinetune",
    "GradualUnfreeze",
    "L2Sp",
    "LinearProbe",
    "Lora",
    "LpFt",
    "Lwf",
    "ParameterTransfer",
    "ShuffledWeights",
    "SoupToSource",
    "StatisticsOnly",
    "Surgical",
]
