from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from transfuse.metrics import (
    adaptive_calibration_error,
    adaptive_ece,
    ece,
    ece_l2,
    equal_mass_reliability,
    expected_calibration_error,
    maximum_calibration_error,
    mce,
    nll_floored,
    reliability,
    root_mean_square_calibration_error,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "output_fusion" / "metrics_calibration.npz"


def test_short_names() -> None:
    # right with 0.95 and 0.35, wrong with 0.85 and 0.65: each alone in its bin
    confidence_N, correct_N = torch.tensor([0.95, 0.35, 0.85, 0.65]), torch.tensor([True, True, False, False])
    assert float(ece(confidence_N, correct_N, bins=10)) == pytest.approx((0.05 + 0.65 + 0.85 + 0.65) / 4)
    expected = ((0.05**2 + 0.65**2 + 0.85**2 + 0.65**2) / 4) ** 0.5
    assert float(ece_l2(confidence_N, correct_N, bins=10)) == pytest.approx(expected)
    assert float(mce(confidence_N, correct_N, bins=10)) == pytest.approx(0.85)
    # |mean confidence - accuracy|
    for of_one_bin in (ece(confidence_N, correct_N, bins=1), adaptive_ece(confidence_N, correct_N, bins=1)):
        assert float(of_one_bin) == pytest.approx(0.7 - 0.5)


def case(prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    golden = np.load(GOLDEN)
    confidence_N, predicted_N = torch.tensor(golden[f"{prefix}probs"]).max(1)
    return confidence_N, predicted_N == torch.tensor(golden[f"{prefix}y"])


@pytest.mark.parametrize("bins", [10, 15])
def test_golden_values(bins: int) -> None:
    golden = np.load(GOLDEN)
    confidence_N, correct_N = case("in_")
    expected = float(expected_calibration_error(confidence_N, correct_N, bins=bins))
    assert expected == pytest.approx(float(golden[f"out_ece_l1_{bins}"]), abs=1e-6)
    adaptive = float(adaptive_calibration_error(confidence_N, correct_N, bins=bins))
    assert adaptive == pytest.approx(float(golden[f"out_adaptive_ece_l1_{bins}"]), abs=1e-6)
    largest = float(maximum_calibration_error(confidence_N, correct_N, bins=bins))
    assert largest == pytest.approx(float(golden[f"out_ece_max_{bins}"]), abs=1e-6)
    square = float(root_mean_square_calibration_error(confidence_N, correct_N, bins=bins))
    assert square == pytest.approx(float(golden[f"out_ece_l2_{bins}"]), abs=1e-6)
    masses = equal_mass_reliability(confidence_N, correct_N, bins=bins)
    assert float(masses.root_mean_square_gap) == pytest.approx(float(golden[f"out_adaptive_ece_l2_{bins}"]), abs=1e-6)
    assert float(masses.largest_gap) == pytest.approx(float(golden[f"out_adaptive_ece_max_{bins}"]), abs=1e-6)


def test_confidences_on_edges_belong_to_the_bin_above() -> None:
    golden = np.load(GOLDEN)
    confidence_N, correct_N = case("in_edge_")
    ece = float(expected_calibration_error(confidence_N, correct_N, bins=4))
    assert ece == pytest.approx(float(golden["out_edge_ece_l1_4"]), abs=1e-6)
    assert ece == pytest.approx(0.33125, abs=1e-6)


def test_confidence_one_is_in_the_last_bin() -> None:
    table = reliability(torch.tensor([0.95, 1.0, 0.0]), torch.tensor([True, False, True]))
    assert table.bins.tolist() == [0, 14]
    assert table.counts.tolist() == [1, 2]
    assert table.confidences.tolist() == pytest.approx([0, 0.975])
    assert table.accuracies.tolist() == [1, 0.5]


@pytest.mark.parametrize(
    "error",
    [
        expected_calibration_error,
        adaptive_calibration_error,
        maximum_calibration_error,
        root_mean_square_calibration_error,
    ],
)
def test_limits(error: type[expected_calibration_error]) -> None:
    right = torch.arange(20) < 15
    assert float(error(torch.full((20,), 0.75), right, bins=1)) == 0
    assert float(error(torch.ones(20), torch.zeros(20).bool())) == 1
    assert float(error(torch.ones(20), torch.ones(20).bool())) == 0
    assert error(torch.zeros(0), torch.zeros(0).bool()).isnan()


def test_one_bin_is_the_gap_of_the_means() -> None:
    confidence_N, correct_N = case("in_")
    expected = abs(float(confidence_N.double().mean()) - float(correct_N.double().mean()))
    assert float(expected_calibration_error(confidence_N, correct_N, bins=1)) == pytest.approx(expected, abs=1e-12)
    assert float(adaptive_calibration_error(confidence_N, correct_N, bins=1)) == pytest.approx(expected, abs=1e-12)


def test_equal_mass_bins_differ_by_one_example_and_are_never_empty() -> None:
    confidence_N, correct_N = case("in_")
    assert equal_mass_reliability(confidence_N[:17], correct_N[:17], bins=5).counts.tolist() == [4, 4, 3, 3, 3]
    assert equal_mass_reliability(confidence_N[:3], correct_N[:3], bins=10).counts.tolist() == [1, 1, 1]


def test_examples_at_the_floor_of_the_likelihood_are_counted() -> None:
    log_probs_NC = torch.tensor([[0.0, -30.0], [0.0, -27.0], [-30.0, 0.0]], dtype=torch.float64)
    assert int(nll_floored(log_probs_NC, torch.tensor([1, 1, 1]))) == 1
