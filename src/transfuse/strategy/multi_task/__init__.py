"""Multi-task learning with shared parameters."""

from transfuse.strategy.multi_task.aligned_mtl import AlignedMTL
from transfuse.strategy.multi_task.cagrad import CAGrad
from transfuse.strategy.multi_task.config import ConFIG
from transfuse.strategy.multi_task.conflict_gated import ConflictGated
from transfuse.strategy.multi_task.db_mtl import DBMTL
from transfuse.strategy.multi_task.dualproj import DualProj
from transfuse.strategy.multi_task.dwa import DynamicWeightAverage
from transfuse.strategy.multi_task.excess_mtl import ExcessMTL
from transfuse.strategy.multi_task.fairgrad import FairGrad
from transfuse.strategy.multi_task.famo import FAMO
from transfuse.strategy.multi_task.gls import GeometricLoss
from transfuse.strategy.multi_task.graddrop import GradDrop
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.gradnorm import GradNorm
from transfuse.strategy.multi_task.gradvac import GradVac
from transfuse.strategy.multi_task.grouped import Grouped
from transfuse.strategy.multi_task.imtl_g import ImpartialGradient
from transfuse.strategy.multi_task.imtl_l import ImpartialLoss
from transfuse.strategy.multi_task.jacobian_rule import JacobianRule
from transfuse.strategy.multi_task.joint_sum import JointSum
from transfuse.strategy.multi_task.library import Balanced, balance
from transfuse.strategy.multi_task.log_sum import LogSum
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.strategy.multi_task.mgda import MGDA
from transfuse.strategy.multi_task.nash_mtl import NashMTL
from transfuse.strategy.multi_task.pcgrad import PCGrad
from transfuse.strategy.multi_task.rlw import RandomLossWeighting
from transfuse.strategy.multi_task.scheduled import ScheduledWeights
from transfuse.strategy.multi_task.static import StaticWeights
from transfuse.strategy.multi_task.stch import SmoothTchebycheff
from transfuse.strategy.multi_task.torchjd import TorchJD
from transfuse.strategy.multi_task.tuned_static import TunedStaticWeights
from transfuse.strategy.multi_task.uncertainty import UncertaintyWeighting
from transfuse.strategy.multi_task.upgrad import UPGrad

__all__ = [
    "DBMTL",
    "FAMO",
    "MGDA",
    "AlignedMTL",
    "Balanced",
    "CAGrad",
    "ConFIG",
    "ConflictGated",
    "DualProj",
    "DynamicWeightAverage",
    "ExcessMTL",
    "FairGrad",
    "GeometricLoss",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientRule",
    "Grouped",
    "ImpartialGradient",
    "ImpartialLoss",
    "JacobianRule",
    "JointSum",
    "LogSum",
    "LossWeighting",
    "NashMTL",
    "PCGrad",
    "RandomLossWeighting",
    "ScheduledWeights",
    "SmoothTchebycheff",
    "StaticWeights",
    "TorchJD",
    "TunedStaticWeights",
    "UPGrad",
    "UncertaintyWeighting",
    "balance",
]
