from __future__ import annotations

import pytest
import torch

from transfuse.metrics import risk_coverage


def test_hand_calculated_curve() -> None:
    curve = risk_coverage(torch.tensor([0.6, 0.9, 0.7, 0.8]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert curve.coverages_N.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risks_N.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.thresholds_N.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_the_best_and_the_worst_order_of_three_errors_in_ten() -> None:
    wrong_N = (torch.arange(10) >= 7).double()
    sure, unsure = risk_coverage(-torch.arange(10), wrong_N), risk_coverage(torch.arange(10), wrong_N)
    assert sure.area == pytest.approx((1 / 8 + 2 / 9 + 3 / 10) / 10)
    assert unsure.area == pytest.approx((1 + 1 + 1 + sum(3 / k for k in range(4, 11))) / 10)
    assert float(sure.risks_N[-1]) == float(unsure.risks_N[-1]) == pytest.approx(0.3)


def test_the_order_of_equal_confidences_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence_N = torch.randint(4, (40,), generator=generator) / 4
    loss_N = torch.rand(40, generator=generator)
    order = torch.randperm(40, generator=generator)
    one, other = risk_coverage(confidence_N, loss_N), risk_coverage(confidence_N[order], loss_N[order])
    assert torch.allclose(one.risks_N, other.risks_N, rtol=0, atol=1e-12)
    flat = risk_coverage(torch.ones(40), loss_N)
    assert torch.allclose(flat.risks_N, loss_N.double().mean().expand(40), rtol=0, atol=1e-12)


def test_a_thinned_curve_keeps_its_end_and_its_points() -> None:
    curve = risk_coverage(torch.rand(251, generator=torch.Generator().manual_seed(0)), torch.arange(251) % 2)
    thin = curve.thinned(100)
    assert len(thin.risks_N) == len(set(thin.coverages_N.tolist())) == 100
    assert float(thin.coverages_N[-1]) == 1
    assert float(thin.risks_N[-1]) == float(curve.risks_N[-1])
    known = dict(zip(curve.coverages_N.tolist(), curve.risks_N.tolist(), strict=True))
    assert all(known[x] == y for x, y in zip(thin.coverages_N.tolist(), thin.risks_N.tolist(), strict=True))
    assert curve.thinned(251) is curve


def test_no_examples_have_no_area() -> None:
    assert torch.tensor(risk_coverage(torch.zeros(0), torch.zeros(0)).area).isnan()
