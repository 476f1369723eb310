"""Tiny files in the layout of Fashion-MNIST, in place of the real ones."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from transfuse.data import fashion_mnist, fashion_transfer
from transfuse.data.files import Archive


@dataclass(frozen=True, kw_only=True)
class TinyFashion:
    """400 training and 60 test images with their labels, and the data folder where their files lie."""

    folder: Path
    archive: Archive
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@pytest.fixture
def tiny_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyFashion:
    random = np.random.default_rng(0)
    images, test_images = (random.integers(0, 256, (number, 28, 28), dtype=np.uint8) for number in (400, 60))
    labels, test_labels = ((np.arange(number) % 10).astype(np.uint8) for number in (400, 60))
    files = {
        "train-images-idx3-ubyte.gz": _idx(images),
        "train-labels-idx1-ubyte.gz": _idx(labels),
        "t10k-images-idx3-ubyte.gz": _idx(test_images),
        "t10k-labels-idx1-ubyte.gz": _idx(test_labels),
    }
    own = tmp_path / "data" / "fashion-mnist"
    own.mkdir(parents=True)
    for name, content in files.items():
        (own / name).write_bytes(gzip.compress(content))
    archive = replace(
        fashion_mnist.ARCHIVE,
        system=tmp_path / "nowhere",
        url=f"{(tmp_path / 'nowhere').as_uri()}/",
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    monkeypatch.setattr(fashion_mnist, "ARCHIVE", archive)
    monkeypatch.setattr(fashion_transfer, "ARCHIVE", archive)
    return TinyFashion(
        folder=tmp_path / "data",
        archive=archive,
        images=images,
        labels=labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def _idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
