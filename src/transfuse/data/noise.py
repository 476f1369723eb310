"""Transfer from clean to noisy images: the source, the target and the test share no image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from transfuse.data.dataset import require, require_fraction
from transfuse.data.scaling import pixel_scaling
from transfuse.data.splits import balanced, count, make_development, split_off
from transfuse.randomness import make_generator
from transfuse.types import Problem, Split, Task


def add_noise(split: Split, noise: float, generator: torch.Generator) -> Split:
    """Adds `noise` * e to every pixel, e ~ N(0, 1); `noise` is in units of the standardized pixel."""
    return replace(split, inputs=split.inputs + noise * torch.randn(split.inputs.shape, generator=generator))


@dataclass(frozen=True, kw_only=True)
class CleanToNoisy:
    """A transfer problem from clean source images to few noisy target images of the same classes.

    The source's training statistics standardize everything. Noise is drawn once for each image of the pool, so an
    image looks the same whatever `target_size` is; the validation split does not depend on `target_size` either, and
    smaller targets are subsets of larger ones.

    Attributes:
        source_validation_fraction: share of the source images that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced over the classes; at least one a class.
        validation_size: validation examples of the target, stratified; at least one a class.
        noise: standard deviation of the noise in units of the standardized pixel, >= 0.
    """

    source_validation_fraction: float
    target_size: int
    validation_size: int
    noise: float

    def check(self, task: Task) -> None:
        """Raises `HyperparameterError` where a field is out of its range."""
        least = f">= {task.outputs} (one image a class)"
        require_fraction("source_validation_fraction", self.source_validation_fraction)
        require(self.target_size >= task.outputs, "target_size", least, self.target_size)
        require(self.validation_size >= task.outputs, "validation_size", least, self.validation_size)
        require(0 <= self.noise < float("inf"), "noise", ">= 0 and finite", self.noise)

    def build(self, *, name: str, task: Task, source: Split, pool: Split, test: Split, seed: int) -> Problem:
        """The problem from images that are not scaled yet.

        Args:
            name: of the data set.
            task: the one classification task; its classes are named.
            source: images of the source problem.
            pool: images that the target's training and validation splits are drawn from.
            test: images to test on.
            seed: of the run.
        """
        labels, classes = source.targets[task.name], task.classes
        size = count(self.source_validation_fraction, len(source))
        every = torch.arange(len(source))
        index, held_out = split_off(every, size, labels=labels, classes=classes, seed=seed, purpose="source validation")
        scaling = pixel_scaling(source.inputs[index])
        clean = make_development(
            name=f"{name}/source",
            tasks=(task,),
            train=scaling.apply_to(source.select(index)),
            validation=scaling.apply_to(source.select(held_out)),
        )
        labels, every = pool.targets[task.name], torch.arange(len(pool))
        noisy = add_noise(scaling.apply_to(pool), self.noise, make_generator(seed, "noise", "pool"))
        rest, held_out = split_off(
            every, self.validation_size, labels=labels, classes=classes, seed=seed, purpose="target validation"
        )
        index = balanced(rest, self.target_size, labels=labels, classes=classes, seed=seed, purpose="target training")
        development = make_development(
            name=name, tasks=(task,), train=noisy.select(index), validation=noisy.select(held_out), source=clean
        )
        return Problem(
            development=development,
            test=add_noise(scaling.apply_to(test), self.noise, make_generator(seed, "noise", "test")),
            notes=(
                f"Target and test images carry Gaussian noise of {self.noise:g} standard deviations of a pixel; "
                "the source images are clean, and no image is in two splits.",
            ),
        )
