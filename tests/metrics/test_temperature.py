from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from transfuse.metrics.temperature import optimal_temperature
from transfuse.randomness import make_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "output_fusion" / "metrics_calibration.npz"


def test_golden_temperature() -> None:
    golden = np.load(GOLDEN)
    log_probs_EO = torch.from_numpy(golden["in_logits"]).double().log_softmax(1)
    labels_E = torch.from_numpy(golden["in_y"])
    temperature = optimal_temperature(log_probs_EO, labels_E)
    assert temperature == pytest.approx(float(golden["out_temperature"]), abs=1e-6)
    nll = torch.nn.functional.cross_entropy(log_probs_EO / temperature, labels_E)
    assert float(nll) == pytest.approx(float(golden["out_nll_at_temperature"]), abs=1e-9)


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.7])
def test_it_grows_with_the_scale_of_the_logits(factor: float) -> None:
    generator = make_generator("temperature")
    logits_EO = 2 * torch.randn(300, 4, generator=generator, dtype=torch.float64)
    labels_E = (logits_EO + 3 * torch.randn(300, 4, generator=generator)).argmax(1)
    scaled = optimal_temperature(factor * logits_EO, labels_E)
    assert scaled == pytest.approx(factor * optimal_temperature(logits_EO, labels_E), rel=1e-5)


def test_a_closed_form() -> None:
    # two outcomes, always log-odds a, right in a share q: T = a / log(q / (1 - q))
    log_probs_EO = torch.tensor([[3.0, 0.0]]).repeat(10, 1)
    labels_E = torch.tensor([0] * 8 + [1] * 2)
    assert optimal_temperature(log_probs_EO, labels_E) == pytest.approx(3 / np.log(4), rel=1e-6)


@pytest.mark.parametrize(("label", "bound"), [(0, np.exp(-3)), (1, np.exp(3))])
def test_without_an_optimum_inside_it_is_a_bound(label: int, bound: float) -> None:
    log_probs_EO = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    assert optimal_temperature(log_probs_EO, torch.full((5,), label)) == pytest.approx(bound, rel=1e-6)
