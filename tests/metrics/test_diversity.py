from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from torch import Tensor

from transfuse.metrics import (
    cohen_kappa,
    disagreement,
    double_fault,
    error_correlation,
    fleiss_kappa,
    kappa,
    mean_over_pairs,
    oracle_disagreement,
    q_statistic,
    residual_correlation,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "output_fusion" / "diversity.npz")
PREDICTED_ME = torch.tensor(GOLDEN["in_preds"]).T
TRUTH_E = torch.tensor(GOLDEN["in_y"])
CORRECT_ME = PREDICTED_ME.eq(TRUTH_E)
NUM_CLASSES = int(PREDICTED_ME.max()) + 1
OF_CORRECTNESS = [oracle_disagreement, double_fault, q_statistic, error_correlation, kappa]


def assert_off_diagonal(found_MM: Tensor, name: str) -> None:
    expected_MM = torch.tensor(GOLDEN[f"out_{name}"])
    off = ~torch.eye(len(expected_MM), dtype=torch.bool)
    assert torch.allclose(found_MM[off], expected_MM[off], rtol=0, atol=1e-12), name


def test_golden_matrices() -> None:
    assert_off_diagonal(disagreement(PREDICTED_ME), "label_disagreement")
    assert_off_diagonal(oracle_disagreement(CORRECT_ME), "disagreement_measure")
    assert_off_diagonal(double_fault(CORRECT_ME), "double_fault")
    assert_off_diagonal(q_statistic(CORRECT_ME), "Q_statistic")
    assert_off_diagonal(error_correlation(CORRECT_ME), "correlation_coefficient")
    assert_off_diagonal(error_correlation(CORRECT_ME), "error_correlation")
    assert_off_diagonal(cohen_kappa(PREDICTED_ME, NUM_CLASSES), "cohen_kappa_labels")
    # of right and wrong as the two labels, Cohen's kappa is Kuncheva's
    assert_off_diagonal(kappa(CORRECT_ME), "cohen_kappa_oracle")
    assert_off_diagonal(cohen_kappa(CORRECT_ME.long(), 2), "cohen_kappa_oracle")


def test_golden_fleiss_kappa() -> None:
    labels, oracle = float(GOLDEN["out_fleiss_kappa_labels"]), float(GOLDEN["out_fleiss_kappa_oracle"])
    assert fleiss_kappa(PREDICTED_ME, NUM_CLASSES) == pytest.approx(labels, abs=1e-12)
    assert fleiss_kappa(CORRECT_ME.long(), 2) == pytest.approx(oracle, abs=1e-12)


def test_error_correlation_is_pearson_of_the_errors() -> None:
    expected = np.corrcoef((~CORRECT_ME).double().numpy())
    assert np.allclose(error_correlation(CORRECT_ME).numpy(), expected, rtol=0, atol=1e-12)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_measures_are_symmetric_in_range_and_agree_for_two_classes(rows: list[tuple[int, int, int]]) -> None:
    truth_E = torch.tensor([row[0] for row in rows])
    predicted_ME = torch.tensor([row[1:] for row in rows]).T
    correct_ME = predicted_ME == truth_E
    for measure in OF_CORRECTNESS:
        values_MM = measure(correct_ME)
        known = values_MM[~values_MM.isnan()]
        assert torch.equal(values_MM.nan_to_num(9), values_MM.T.nan_to_num(9))
        assert bool((known.abs() <= 1 + 1e-12).all())
    assert bool((oracle_disagreement(correct_ME) <= disagreement(predicted_ME)).all())
    two_ME = predicted_ME % 2
    assert torch.equal(oracle_disagreement(two_ME == truth_E % 2), disagreement(two_ME))


def test_equal_members_do_not_differ() -> None:
    twice_ME = PREDICTED_ME[:1].expand(2, -1)
    right_ME = CORRECT_ME[:1].expand(2, -1)
    assert float(disagreement(twice_ME)[0, 1]) == float(oracle_disagreement(right_ME)[0, 1]) == 0
    for measure in (q_statistic, error_correlation, kappa):
        assert float(measure(right_ME)[0, 1]) == pytest.approx(1, abs=1e-12)
    assert float(cohen_kappa(twice_ME, NUM_CLASSES)[0, 1]) == pytest.approx(1, abs=1e-12)
    assert fleiss_kappa(twice_ME, NUM_CLASSES) == pytest.approx(1, abs=1e-12)
    assert float(double_fault(right_ME)[0, 1]) == pytest.approx(1 - float(right_ME.double().mean()), abs=1e-12)


def test_what_is_undefined_is_nan_and_is_counted() -> None:
    correct_ME = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0]]).bool()  # the first is always right
    for measure in (q_statistic, error_correlation):
        found = mean_over_pairs(measure(correct_ME))
        assert found.undefined == 2
        assert found.value == 0  # the two others are independent
    assert mean_over_pairs(kappa(correct_ME[:1].expand(2, -1))).undefined == 1
    one_label = torch.zeros(2, 5, dtype=torch.int64)
    assert cohen_kappa(one_label, 3).isnan().all()
    assert np.isnan(fleiss_kappa(one_label, 3)) and np.isnan(fleiss_kappa(PREDICTED_ME[:1], NUM_CLASSES))
    alone = mean_over_pairs(q_statistic(CORRECT_ME[:1]))
    assert np.isnan(alone.value) and alone.undefined == 0


def test_the_mean_is_over_pairs_of_different_members() -> None:
    matrix = disagreement(PREDICTED_ME)
    upper = [float(matrix[i, j]) for i in range(4) for j in range(i + 1, 4)]
    assert mean_over_pairs(matrix).value == pytest.approx(sum(upper) / 6, abs=1e-15)


def test_cohen_kappa_is_that_of_scikit_learn_with_labels_that_nobody_gives() -> None:
    first, second = torch.tensor([0, 0, 2, 4, 4, 4]), torch.tensor([0, 2, 2, 4, 0, 4])
    expected = cohen_kappa_score(first, second)
    assert float(cohen_kappa(torch.stack([first, second]), 7)[0, 1]) == pytest.approx(expected, abs=1e-12)


def test_residual_correlation_is_pearsons() -> None:
    residuals_ME = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).double() + 0.1
    expected = np.corrcoef(residuals_ME.numpy())
    assert np.allclose(residual_correlation(residuals_ME).numpy(), expected, rtol=0, atol=1e-12)
    residuals_ME[1] = 0.1  # a constant error, which is no exact mean of itself in floating point
    found_MM = residual_correlation(residuals_ME)
    assert found_MM[1].isnan().all() and float(found_MM[0, 2]) == pytest.approx(expected[0, 2], abs=1e-12)
