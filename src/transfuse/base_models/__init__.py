"""Base models: recipes for pools of trained networks, and the store that trains each once."""

from transfuse.base_models.architectures import Architectures
from transfuse.base_models.auto import Auto
from transfuse.base_models.bagging import Bagging
from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.checkpoints import Checkpoints
from transfuse.base_models.fge import FGE
from transfuse.base_models.finetuned import Finetuned
from transfuse.base_models.hf import Hf
from transfuse.base_models.hyperparameters import Hyperparameters
from transfuse.base_models.per_task import PerTask
from transfuse.base_models.pool import Pool, Trained
from transfuse.base_models.recipe import Recipe
from transfuse.base_models.registry import Registry
from transfuse.base_models.seeds import Seeds
from transfuse.base_models.snapshots import Snapshots
from transfuse.base_models.source import Source
from transfuse.base_models.source_and_target import SourceAndTarget
from transfuse.base_models.store import Store
from transfuse.base_models.trajectory import Trajectory

__all__ = [
    "FGE",
    "Architectures",
    "Auto",
    "Bagging",
    "BaseModelRecipe",
    "Checkpoints",
    "Finetuned",
    "Hf",
    "Hyperparameters",
    "Members",
    "PerTask",
    "Pool",
    "Recipe",
    "Registry",
    "Seeds",
    "Setting",
    "Snapshots",
    "Source",
    "SourceAndTarget",
    "Store",
    "Trained",
    "Trajectory",
]
