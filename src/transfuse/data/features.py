"""Feature columns as network inputs: one-hot strings and standardized numbers, both by training rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transfuse.data.scaling import Scaling, column_scaling, pixel_scaling
from transfuse.data.tables import Array, content
from transfuse.types import DataError

MAX_CATEGORIES = 100


@dataclass(frozen=True, kw_only=True)
class Features:
    """How columns become inputs; fitted on training rows, applied to all.

    Attributes:
        categories: string column -> its strings in the training rows, sorted. Others become all zeros.
        scaling: of the inputs; one-hot columns stay 0 and 1, columns that are constant in the training rows become 0.
    """

    categories: Mapping[str, tuple[str, ...]]
    scaling: Scaling

    def encode(self, columns: Mapping[str, Array]) -> Tensor:
        """Inputs (N, F), or images (N, C, H, W), float32."""
        return self.scaling.apply(_assemble(columns, self.categories))


def fit_features(columns: Mapping[str, Array], rows: Tensor) -> tuple[Features, tuple[str, ...]]:
    """The encoding of these columns by the training rows, and what it did to them, one sentence each.

    Args:
        columns: name -> (N,) or (N, F) numbers or strings; or one array (N, ..., H, W) of images.
        rows: (n,) int64 positions of the training rows.

    Raises:
        DataError: a string column with too many different strings, or a mix of images and columns.
    """
    train = {name: values[rows.numpy()] for name, values in columns.items()}
    categories = {}
    notes = []
    for name, values in train.items():
        if content(values) == "strings":
            if values.ndim > 1:
                raise DataError(f"Feature `{name}` holds strings in {values.ndim} dimensions; one-hot needs one.")
            categories[name] = tuple(sorted(set(values.flat)))
            notes.append(f"Feature `{name}` holds strings: one-hot, {len(categories[name])} columns.")
            if len(categories[name]) > MAX_CATEGORIES:
                raise DataError(
                    f"Feature `{name}` holds {len(categories[name])} different strings; at most {MAX_CATEGORIES} "
                    f"are made one-hot. Leave it out of `features` or group its values."
                )
    inputs = _assemble(train, categories)
    if inputs.ndim > 2:
        return Features(categories=categories, scaling=pixel_scaling(inputs)), tuple(notes)
    width = sum(len(names) for names in categories.values())
    numbers = column_scaling(inputs[:, : inputs.shape[1] - width])
    constant = int((numbers.factor == 0).sum())
    if constant:
        notes.append(f"{constant} of {inputs.shape[1]} input columns are constant in the training split: kept at 0.")
    # one-hot columns come last and stay as they are: scaled, a rare string would be a huge number
    scaling = Scaling(
        mean=torch.cat([numbers.mean, torch.zeros(width, dtype=torch.float64)]),
        factor=torch.cat([numbers.factor, torch.ones(width, dtype=torch.float64)]),
    )
    return Features(categories=categories, scaling=scaling), tuple(notes)


def _assemble(columns: Mapping[str, Array], categories: Mapping[str, tuple[str, ...]]) -> Tensor:
    """Numbers first, then one-hot strings: (N, F) float64; or images (N, C, H, W) as they are."""
    largest = max(columns.values(), key=lambda values: values.ndim)
    if largest.ndim > 2:
        if len(columns) > 1:
            raise DataError(f"`features` {', '.join(columns)}: images (more than 2 dimensions) come alone.")
        images = torch.from_numpy(largest.astype(np.float64 if largest.dtype.kind == "f" else np.float32))
        return images.unsqueeze(1) if images.ndim == 3 else images
    numbers = [values.reshape(len(values), -1) for name, values in columns.items() if name not in categories]
    one_hot = [
        values[:, np.newaxis] == np.array(categories[name]) for name, values in columns.items() if name in categories
    ]
    return torch.from_numpy(np.concatenate(numbers + one_hot, axis=1).astype(np.float64))
