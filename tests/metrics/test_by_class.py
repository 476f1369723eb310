from __future__ import annotations

import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch.nn.functional import one_hot

from transfuse.metrics import by_column, confusion


def test_hand_calculated_classes() -> None:
    labels_N, predicted_N = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0])
    positive, predicted = one_hot(labels_N, 4).bool(), one_hot(predicted_N, 4).bool()
    predicted[4] = torch.tensor([False, False, True, False])  # class 2 is predicted once and never right; 3 not at all
    found = by_column(predicted.double(), predicted, positive, ~positive)
    assert found.support_C.tolist() == [3, 2, 0, 0]
    assert found.precision_C.tolist()[:3] == pytest.approx([1, 1 / 2, 0]) and found.precision_C[3].isnan()
    assert found.recall_C.tolist()[:2] == pytest.approx([2 / 3, 1 / 2]) and found.recall_C[2:].isnan().all()
    assert found.f1_C.tolist()[:3] == pytest.approx([4 / 5, 1 / 2, 0]) and found.f1_C[3].isnan()
    assert found.auroc_C.tolist()[:2] == pytest.approx([5 / 6, 7 / 12]) and found.auroc_C[2:].isnan().all()


def test_one_label_is_a_table_of_one_row() -> None:
    truth, guess = torch.tensor([[1], [1], [0]]).bool(), torch.tensor([[1], [0], [0]]).bool()
    found = by_column(guess.double(), guess, truth, ~truth)
    assert [values.tolist() for values in (found.support_C, found.precision_C, found.recall_C)] == [[2], [1], [0.5]]


def test_unlabelled_entries_are_neither_hit_nor_false_alarm() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(30, 3, generator=generator), torch.randint(2, (30, 3), generator=generator).double()
    targets[:11, 1] = torch.nan
    found = by_column(scores, scores > 0, targets == 1, targets == 0)
    for column, first in enumerate([0, 11, 0]):
        truth_N, score_N = targets[first:, column] == 1, scores[first:, column]
        hits = float((truth_N & (score_N > 0)).sum())
        assert float(found.support_C[column]) == float(truth_N.sum())
        assert float(found.precision_C[column]) == pytest.approx(hits / float((score_N > 0).sum()))
        assert float(found.recall_C[column]) == pytest.approx(hits / float(truth_N.sum()))
        assert float(found.auroc_C[column]) == pytest.approx(roc_auc_score(truth_N, score_N))


def test_confusion_counts_rows_of_labels_and_keeps_absent_classes() -> None:
    labels_N, predicted_N = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 2, 2, 0, 2])
    found = confusion(labels_N, predicted_N, 4)
    assert found.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert found.tolist() == confusion_matrix(labels_N, predicted_N, labels=range(4)).tolist()
