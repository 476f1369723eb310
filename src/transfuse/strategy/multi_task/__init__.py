"""Multi-task learning with shared parameters."""

from transfuse.strategy.multi_task.base import LossWeighting
from transfuse.strategy.multi_task.joint_sum import JointSum

__all__ = ["JointSum", "LossWeighting"]
