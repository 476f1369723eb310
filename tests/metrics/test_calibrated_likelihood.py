from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from transfuse.metrics import nll_at_optimal_temperature
from transfuse.metrics.temperature import optimal_temperature

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "output_fusion" / "metrics_calibration.npz")
LOGITS = torch.tensor(GOLDEN["in_logits"]).double()
LABELS = torch.tensor(GOLDEN["in_y"])
HALVES = torch.arange(len(LABELS)) % 2


def test_in_sample_it_is_the_golden_value() -> None:
    temperature = optimal_temperature(LOGITS.log_softmax(1), LABELS)
    assert temperature == pytest.approx(float(GOLDEN["out_temperature"]), abs=1e-6)
    value = float(cross_entropy(LOGITS / temperature, LABELS))
    assert value == pytest.approx(float(GOLDEN["out_nll_at_temperature"]), abs=1e-9)
    # each half twice: the temperature of the other fold is that of the same examples
    twice, labels = torch.cat([LOGITS, LOGITS]), torch.cat([LABELS, LABELS])
    folds = torch.arange(len(labels)) // len(LABELS)
    assert nll_at_optimal_temperature(twice.log_softmax(1), labels, folds) == pytest.approx(value, abs=1e-9)


def test_each_fold_is_judged_at_the_temperature_of_the_other() -> None:
    expected = 0.0
    for fold in (0, 1):
        held = fold == HALVES
        temperature = optimal_temperature(LOGITS[~held], LABELS[~held])
        expected += float(cross_entropy(LOGITS[held] / temperature, LABELS[held], reduction="sum"))
    found = nll_at_optimal_temperature(LOGITS.log_softmax(1), LABELS, HALVES)
    assert found == pytest.approx(expected / len(LABELS), abs=1e-9)
    assert float(GOLDEN["out_nll_at_temperature"]) < found < float(GOLDEN["out_nll"])


def test_a_temperature_makes_no_difference() -> None:
    values = [nll_at_optimal_temperature((LOGITS * a).log_softmax(1), LABELS, HALVES) for a in (0.3, 1, 4)]
    assert values == pytest.approx([values[1]] * 3, abs=1e-6)


def test_one_fold_alone_has_no_honest_value() -> None:
    assert np.isnan(nll_at_optimal_temperature(LOGITS, LABELS, torch.zeros(len(LABELS), dtype=torch.int64)))
