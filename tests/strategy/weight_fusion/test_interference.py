from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion import (
    SCE,
    Breadcrumbs,
    BreadcrumbsTies,
    DareLinear,
    DareTies,
    Della,
    TaskArithmetic,
    Ties,
)
from transfuse.strategy.weight_fusion.election import Ballot
from transfuse.strategy.weight_fusion.interference import interference, lost_mass, sign_conflicts
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.selection import Selection

KEYS = ("a", "b")


def states(count: int = 3) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Small tensors, and one that spans two leaves."""
    stream = torch.Generator().manual_seed(5)
    base = {"a": torch.randn(5, 7, generator=stream), "b": torch.randn(66_000, generator=stream)}
    models = [{key: value + torch.randn(value.shape, generator=stream) for key, value in base.items()}]
    models += [
        {key: value + 0.5 * torch.randn(value.shape, generator=stream) for key, value in base.items()}
        for _ in range(count - 1)
    ]
    return models, base


def expected(votes: list[np.ndarray], deltas: list[np.ndarray], *, elects: bool = True) -> dict[str, float | None]:
    """Shares by NumPy; one (K, n) array a tensor."""
    t, d = np.concatenate(votes, axis=1), np.concatenate(deltas, axis=1)

    def conflict(x: np.ndarray) -> float:
        shared = (x != 0).sum(0) > 1
        return float(((x > 0).any(0) & (x < 0).any(0)).sum() / shared.sum())

    sign = np.where(t.sum(0) >= 0, 1.0, -1.0)
    lost = np.abs(t)[np.sign(t) == -sign].sum() / np.abs(t).sum() if elects else None
    return {"sign_conflict": conflict(d), "sign_conflict_trimmed": conflict(t), "mass_lost": lost}


def deltas_of(models, base) -> list[np.ndarray]:
    return [np.stack([(model[key] - base[key]).numpy().reshape(-1) for model in models]) for key in KEYS]


def trimmed(deltas_KN: np.ndarray, kept: int, dropped: int = 0) -> np.ndarray:
    out = np.zeros_like(deltas_KN)
    for row, delta in zip(out, deltas_KN, strict=True):
        chosen = np.argsort(-np.abs(delta), kind="stable")[dropped : dropped + kept]
        row[chosen] = delta[chosen]
    return out


def assert_total(found, wanted: dict[str, float | None]) -> None:
    row = found[0].row()
    assert row["name"] == "all" and row["elements"] == 35 + 66_000
    for name, value in wanted.items():
        assert row[name] == (None if value is None else pytest.approx(value, rel=1e-5)), name


@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("weigh", ["before_election", "after"])
def test_ties_against_numpy(weights, weigh) -> None:
    models, base = states()
    deltas = deltas_of(models, base)
    votes = [trimmed(delta, max(1, int(0.2 * delta.shape[1]))) for delta in deltas]
    if weights is not None and weigh == "before_election":
        votes = [vote * np.array(weights, dtype=np.float32)[:, None] for vote in votes]
    found = interference(Ties(density=0.2, weights=weights, weigh=weigh), models, base)
    assert_total(found, expected(votes, deltas))
    assert [part.name for part in found] == ["all", *KEYS]
    assert found[1].row()["mass_lost"] == pytest.approx(expected(votes[:1], deltas[:1])["mass_lost"], rel=1e-5)


def test_ties_over_the_whole_model() -> None:
    models, base = states()
    deltas = deltas_of(models, base)
    flat = np.concatenate(deltas, axis=1)
    votes = trimmed(flat, int(0.3 * flat.shape[1]))
    found = interference(Ties(density=0.3, scope="model"), models, base)
    assert_total(found, expected([votes[:, :35], votes[:, 35:]], deltas))


@pytest.mark.parametrize(("method", "elects"), [(BreadcrumbsTies, True), (Breadcrumbs, False)])
def test_bands_against_numpy(method, elects: bool) -> None:
    models, base = states()
    deltas = deltas_of(models, base)
    votes = [trimmed(delta, int(0.5 * delta.shape[1]), int(0.1 * delta.shape[1])) for delta in deltas]
    found = interference(method(density=0.5, gamma=0.1), models, base)
    assert_total(found, expected(votes, deltas, elects=elects))


@pytest.mark.parametrize(("method", "elects"), [(DareTies, True), (DareLinear, False), (Della, True)])
def test_masks_that_are_handed_in(method, elects: bool) -> None:
    models, base = states()
    deltas = deltas_of(models, base)
    stream = torch.Generator().manual_seed(1)
    masks = [{key: torch.rand(base[key].shape, generator=stream) < 0.5 for key in KEYS} for _ in models]
    kept = [np.stack([mask[key].numpy().reshape(-1) for mask in masks]) for key in KEYS]
    votes = [delta * keep for delta, keep in zip(deltas, kept, strict=True)]
    found = interference(method(density=0.5, rescale="none"), models, base, measured=Measured(masks=masks))
    assert_total(found, expected(votes, deltas, elects=elects))


def test_drawn_masks_are_those_of_the_merge() -> None:
    models, base = states(2)
    method = DareLinear(density=0.3, rescale="none")
    merged = method.merged([models[0], base], base, seed=4)
    votes = [np.stack([(merged[key] - base[key]).numpy().reshape(-1), np.zeros(base[key].numel())]) for key in KEYS]
    (total, *_) = interference(method, [models[0], base], base, seed=4)
    assert total.mass == pytest.approx(sum(np.abs(vote).sum() for vote in votes), rel=1e-5)


def test_sce_selects_by_variance_and_elects_unweighted() -> None:
    models, base = states()
    deltas = deltas_of(models, base)
    votes = []
    for delta in deltas:
        chosen = np.argsort(-delta.astype(np.float64).var(axis=0), kind="stable")[: delta.shape[1] // 4]
        votes.append(np.zeros_like(delta))
        votes[-1][:, chosen] = delta[:, chosen]
    assert_total(interference(SCE(select=0.25), models, base), expected(votes, deltas))


def test_models_that_agree_lose_nothing() -> None:
    models, base = states(1)
    total = interference(Ties(density=1.0), [models[0], models[0]], base)[0].row()
    assert (total["sign_conflict"], total["sign_conflict_trimmed"], total["mass_lost"]) == (0.0, 0.0, 0.0)
    nothing = interference(Ties(density=1.0), [base, base], base)[0].row()
    assert (nothing["sign_conflict"], nothing["sign_conflict_trimmed"], nothing["mass_lost"]) == (None, None, None)


def test_opposite_models_lose_the_smaller_one() -> None:
    base = {"w": torch.zeros(2)}
    found = interference(Ties(density=1.0), [{"w": torch.tensor([3.0, -2.0])}, {"w": torch.tensor([-1.0, 2.0])}], base)
    assert found[0].row() == {
        "name": "all", "elements": 2, "sign_conflict": 1.0, "sign_conflict_trimmed": 1.0, "mass_lost": 3 / 8,
    }  # fmt: skip


def test_tensors_that_are_not_fused_do_not_count() -> None:
    models, base = states()
    found = interference(Ties(), models, base, selection=Selection(skip=("b",)))
    assert [part.name for part in found] == ["all", "a"] and found[0].elements == 35


def test_counts_and_mass_of_a_block() -> None:
    assert sign_conflicts(torch.tensor([[1.0, 0.0, -1.0, 0.0], [-2.0, 0.0, -1.0, 1.0]])) == (1, 2)
    votes_KB = torch.tensor([[5.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert lost_mass(Ballot(votes_KB=votes_KB, elect="mass")) == 3.0
    assert lost_mass(Ballot(votes_KB=votes_KB, elect="count")) == 6.0
    assert lost_mass(Ballot(votes_KB=votes_KB, elect=None)) is None


def test_inputs_stay_as_they_are(digest) -> None:
    models, base = states()
    before = [digest(state) for state in (*models, base)]
    for method in (Ties(), DareTies(), Della(), BreadcrumbsTies(), SCE(select=0.5)):
        interference(method, models, base)
    assert [digest(state) for state in (*models, base)] == before


def test_a_run_records_it_and_a_merge_does_not_count(toys, monkeypatch) -> None:
    data = toys.development()
    start, networks = toys.finetuned(3, data)
    method = Ties(density=1.0, scale="search", grid=(0.5, 1.0))
    diagnostics = method.apply(toys.context(networks, data, start)).diagnostics
    found = diagnostics["interference"]
    assert json.loads(json.dumps(found)) == found
    geometry = diagnostics["geometry"]
    assert found["total"]["sign_conflict"] == pytest.approx(geometry["total"]["sign_conflict"])
    assert [row["name"] for row in found["tensors"]] == [row["name"] for row in geometry["tensors"]]
    assert 0 < found["total"]["mass_lost"] < 0.5
    plain = TaskArithmetic().apply(toys.context(networks, data, start)).diagnostics
    assert plain["interference"] is None

    def refused(*args: object) -> None:
        raise AssertionError("counted where nothing is recorded")

    monkeypatch.setattr("transfuse.strategy.weight_fusion.interference.sign_conflicts", refused)
    Ties().merged([network.state_dict() for network in networks], start.state_dict())
