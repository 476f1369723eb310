"""Multi-task learning with shared parameters."""

from transfuse.strategy.multi_task.aligned_mtl import AlignedMTL
from transfuse.strategy.multi_task.config import ConFIG
from transfuse.strategy.multi_task.dualproj import DualProj
from transfuse.strategy.multi_task.fairgrad import FairGrad
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.imtl_g import ImpartialGradient
from transfuse.strategy.multi_task.jacobian_rule import JacobianRule
from transfuse.strategy.multi_task.joint_sum import JointSum
from transfuse.strategy.multi_task.library import Balanced, balance
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.strategy.multi_task.mgda import MGDA
from transfuse.strategy.multi_task.pcgrad import PCGrad
from transfuse.strategy.multi_task.upgrad import UPGrad

__all__ = [
    "MGDA",
    "AlignedMTL",
    "Balanced",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "GradientRule",
    "ImpartialGradient",
    "JacobianRule",
    "JointSum",
    "LossWeighting",
    "PCGrad",
    "UPGrad",
    "balance",
]
