"""What tests of pools share: a pool over toy data, and the loop that its trainings must equal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.toy import CPU
from transfuse.base_models import BaseModelRecipe, Pool, Setting, Store, Trained
from transfuse.data.loaders import TrainingBatches
from transfuse.randomness import derive_seed
from transfuse.training.fit import Fit
from transfuse.training.settings import Devices


def make_pool(
    recipe: BaseModelRecipe,
    setting: Setting,
    folder: Path,
    news: list[Trained] | None = None,
    devices: Devices = CPU,
) -> Pool:
    folder.mkdir(parents=True, exist_ok=True)
    return Pool(
        name=recipe.name,
        members=recipe.members(setting),
        development=setting.development,
        store=Store(folder),
        fit=Fit(devices, folder),
        refresh_before=time.time() if recipe.refresh else 0.0,
        on_trained=[].append if news is None else news.append,
    )


def sgd_states(
    setting: Setting, network: nn.Module, *, seed: int, steps: int, lr: Callable[[int], float]
) -> Iterator[dict[str, Tensor]]:
    """The weights after each step of plain SGD with momentum on the task `sign`."""
    training = setting.training
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=training.momentum)
    order = derive_seed(seed, "order")
    batches = TrainingBatches(setting.development.train, batch_size=training.batch_size, seed=order, stop=steps)
    step = 0
    while step < steps:
        for batch in batches:
            optimizer.zero_grad()
            cross_entropy(network(batch.inputs)["sign"], batch.targets["sign"]).backward()
            optimizer.param_groups[0]["lr"] = lr(step)
            optimizer.step()
            step += 1
            yield {name: value.clone() for name, value in network.state_dict().items()}
