"""Multi-task learning with shared parameters."""

from transfuse.strategy.multi_task.aligned_mtl import AlignedMTL
from transfuse.strategy.multi_task.cagrad import CAGrad
from transfuse.strategy.multi_task.config import ConFIG
from transfuse.strategy.multi_task.dualproj import DualProj
from transfuse.strategy.multi_task.dwa import DynamicWeightAverage
from transfuse.strategy.multi_task.fairgrad import FairGrad
from transfuse.strategy.multi_task.gls import GeometricLoss
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.imtl_g import ImpartialGradient
from transfuse.strategy.multi_task.jacobian_rule import JacobianRule
from transfuse.strategy.multi_task.joint_sum import JointSum
from transfuse.strategy.multi_task.library import Balanced, balance
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.strategy.multi_task.mgda import MGDA
from transfuse.strategy.multi_task.nash_mtl import NashMTL
from transfuse.strategy.multi_task.pcgrad import PCGrad
from transfuse.strategy.multi_task.rlw import RandomLossWeighting
from transfuse.strategy.multi_task.static import StaticWeights
from transfuse.strategy.multi_task.uncertainty import UncertaintyWeighting
from transfuse.strategy.multi_task.upgrad import UPGrad

__all__ = [
    "MGDA",
    "AlignedMTL",
    "Balanced",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "DynamicWeightAverage",
    "FairGrad",
    "GeometricLoss",
    "GradientRule",
    "ImpartialGradient",
    "JacobianRule",
    "JointSum",
    "LossWeighting",
    "NashMTL",
    "PCGrad",
    "RandomLossWeighting",
    "StaticWeights",
    "UPGrad",
    "UncertaintyWeighting",
    "balance",
]
