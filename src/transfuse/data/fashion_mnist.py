"""Fashion-MNIST: 60,000 + 10,000 images of 28 x 28 pixels, 10 kinds of clothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require, require_fraction
from transfuse.data.files import Archive
from transfuse.data.scaling import pixel_scaling
from transfuse.data.splits import count, make_development, split_off
from transfuse.types import DataError, Problem, Split, Task

ARCHIVE = Archive(
    title="Fashion-MNIST",
    stem="fashion-mnist",
    system=Path("/usr/share/datasets/fashion-mnist"),
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    install="apt-get install dataset-fashion-mnist",
    sha256={
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)

ARTICLE = Task(
    name="article",
    kind="classification",
    outputs=10,
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Dataset):
    """Which article of clothing is it? Inputs (1, 28, 28); the official 10,000 test images are the test split.

    Reference: Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747. MIT licence.

    Attributes:
        train_size: images taken from the training file, for training and validation together, stratified; null: all.
        validation_fraction: share of them that is validation, in (0, 1).
    """

    train_size: int | None = None
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        require_fraction("validation_fraction", self.validation_fraction)
        require(self.train_size is None or self.train_size >= 100, "train_size", ">= 100 or null", self.train_size)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Stratified train and validation splits of the training file, scaled by training statistics."""
        train, validation, test = images(self, seed=seed, folder=folder)
        scaling = pixel_scaling(train.inputs)
        development = make_development(
            name=self.name,
            tasks=(ARTICLE,),
            train=scaling.apply_to(train),
            validation=scaling.apply_to(validation),
        )
        return Problem(development=development, test=scaling.apply_to(test))


def images(settings: FashionMnist, *, seed: int, folder: Path) -> tuple[Split, Split, Split]:
    """Train, validation and test, stratified, as bytes in 0..255."""
    examples, test = read_fashion_mnist(ARCHIVE, folder)
    index = subset(examples, settings.train_size, field="train_size", seed=seed)
    train, validation = split_off(
        index,
        count(settings.validation_fraction, len(index)),
        labels=examples.targets[ARTICLE.name],
        classes=ARTICLE.classes,
        seed=seed,
        purpose="validation",
    )
    return examples.select(train), examples.select(validation), test


def read_fashion_mnist(archive: Archive, folder: Path) -> tuple[Split, Split]:
    """The training file and the test file: inputs (N, 1, H, W) uint8, ids counted through both.

    Args:
        archive: where the files may lie and their SHA-256.
        folder: where downloaded data lie.

    Raises:
        DataError: a file is nowhere to be found, damaged, or images and labels do not fit.
    """
    parts = []
    first = 0
    for part in ("train", "t10k"):
        images_NHW = read_idx(archive.read(f"{part}-images-idx3-ubyte.gz", folder), dimensions=3)
        labels_N = read_idx(archive.read(f"{part}-labels-idx1-ubyte.gz", folder), dimensions=1)
        if len(images_NHW) != len(labels_N):
            raise DataError(f"{archive.title}: {len(images_NHW)} images and {len(labels_N)} labels in {part}.")
        ids_N = torch.arange(first, first + len(labels_N))
        parts.append(Split(inputs=images_NHW.unsqueeze(1), targets={ARTICLE.name: labels_N.long()}, ids=ids_N))
        first += len(labels_N)
    return parts[0], parts[1]


def read_idx(content: bytes, *, dimensions: int) -> Tensor:
    """An idx file of unsigned bytes: 0, 0, 8, number of dimensions, big-endian sizes, then the values.

    Reference: LeCun, Cortes, Burges, The MNIST database (the format's description).

    Raises:
        DataError: another type, another number of dimensions, or another length than the sizes say.
    """
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"Not an idx file of unsigned bytes with {dimensions} dimension(s): {content[:4].hex()}.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise DataError(f"An idx file of shape {shape} holds {len(values)} values.")
    return torch.from_numpy(values.reshape(shape).copy())


def subset(examples: Split, size: int | None, *, field: str, seed: int) -> Tensor:
    """Positions of a stratified subset of `size` examples; of all when `size` is None.

    Raises:
        DataError: `size` is larger than the number of examples, or leaves fewer than one a class.
    """
    every = torch.arange(len(examples))
    if size is None or size == len(examples):
        return every
    if size > len(examples):
        raise DataError(f"`{field}` should be at most {len(examples)}, the images there are. Found {size}.")
    labels = examples.targets[ARTICLE.name]
    return split_off(every, size, labels=labels, classes=ARTICLE.classes, seed=seed, purpose=field)[1]
