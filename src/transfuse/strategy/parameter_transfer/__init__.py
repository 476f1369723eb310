"""Parameter transfer: start from the source model's weights."""

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune

__all__ = ["FullFinetune", "ParameterTransfer"]
