from __future__ import annotations

from typing import Any

import pytest
import torch

from transfuse.data import FashionGroups, FashionMnist
from transfuse.data.fashion_groups import GROUPS
from transfuse.data.fashion_mnist import ARTICLE
from transfuse.types import HyperparameterError


def test_every_article_is_in_one_group() -> None:
    assert sorted(article for group in GROUPS.values() for article in group) == sorted(ARTICLE.classes)


def test_an_image_is_labelled_for_its_group_alone(tiny_fashion: Any) -> None:
    grouped = FashionGroups().build(seed=3, folder=tiny_fashion.folder)
    articles = FashionMnist().build(seed=3, folder=tiny_fashion.folder)
    assert grouped.development.kind == "multi_task"
    for ours, theirs in (
        (grouped.development.train, articles.development.train),
        (grouped.development.validation, articles.development.validation),
        (grouped.test, articles.test),
    ):
        assert torch.equal(ours.inputs, theirs.inputs) and torch.equal(ours.ids, theirs.ids)
        for row, article in enumerate(theirs.targets["article"].tolist()):
            labels = {name: int(values[row]) for name, values in ours.targets.items()}
            named = {name: GROUPS[name][label] for name, label in labels.items() if label >= 0}
            assert list(named.values()) == [ARTICLE.classes[article]]


def test_one_task_has_its_own_images(tiny_fashion: Any) -> None:
    development = FashionGroups().build(seed=0, folder=tiny_fashion.folder).development
    shoes = development.for_task("shoes")
    expected = development.train.targets["shoes"] >= 0
    assert torch.equal(shoes.train.ids, development.train.ids[expected])
    assert set(shoes.train.targets) == {"shoes"} and shoes.train.targets["shoes"].min() == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="`train_size` should be >= 100"):
        FashionGroups(train_size=10)
    with pytest.raises(HyperparameterError, match="`validation_fraction` should be in"):
        FashionGroups(validation_fraction=1.0)
