"""Base models: recipes for pools of trained networks, and the store that trains each once."""

from transfuse.base_models.auto import Auto
from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.checkpoints import Checkpoints
from transfuse.base_models.finetuned import Finetuned
from transfuse.base_models.per_task import PerTask
from transfuse.base_models.pool import Pool, Trained
from transfuse.base_models.recipe import Recipe
from transfuse.base_models.seeds import Seeds
from transfuse.base_models.source import Source
from transfuse.base_models.source_and_target import SourceAndTarget
from transfuse.base_models.store import Store

__all__ = [
    "Auto",
    "BaseModelRecipe",
    "Checkpoints",
    "Finetuned",
    "Members",
    "PerTask",
    "Pool",
    "Recipe",
    "Seeds",
    "Setting",
    "Source",
    "SourceAndTarget",
    "Store",
    "Trained",
]
