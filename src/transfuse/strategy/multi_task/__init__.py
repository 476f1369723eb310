"""Multi-task learning with shared parameters."""

from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.jacobian_rule import JacobianRule
from transfuse.strategy.multi_task.joint_sum import JointSum
from transfuse.strategy.multi_task.library import Balanced, balance
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.strategy.multi_task.pcgrad import PCGrad

__all__ = ["Balanced", "GradientRule", "JacobianRule", "JointSum", "LossWeighting", "PCGrad", "balance"]
