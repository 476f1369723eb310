from __future__ import annotations

from itertools import chain

import pytest
import torch

from transfuse.data.loaders import Batch, EvaluationBatches, TrainingBatches, examples_per_epoch
from transfuse.types import DataError, HyperparameterError, Split


def examples(size: int) -> Split:
    values = torch.arange(size)
    return Split(
        inputs=values[:, None].float() * 2, targets={"a": values, "b": values[:, None].float()}, ids=values + 7
    )


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


def test_each_example_comes_once_an_epoch_with_its_own_input_and_targets() -> None:
    batches = list(TrainingBatches(examples(101), batch_size=8, seed=3))
    assert [len(batch.ids) for batch in batches] == [8] * 12 + [5]
    assert sorted(chain(*ids(batches))) == list(range(7, 108))
    for batch in batches:
        assert torch.equal(batch.inputs[:, 0], 2.0 * (batch.ids - 7))
        assert torch.equal(batch.targets["a"], batch.ids - 7)
        assert torch.equal(batch.targets["b"][:, 0], (batch.ids - 7).float())


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    split = examples(100)
    unbroken = TrainingBatches(split, batch_size=8, seed=3)
    first, second = ids(list(unbroken)), ids(list(unbroken))
    assert first != second
    assert first != ids(list(TrainingBatches(split, batch_size=8, seed=4)))
    torch.manual_seed(99)
    assert ids(list(TrainingBatches(split, batch_size=8, seed=3, start=13))) == second


@pytest.mark.parametrize("start", [0, 1, 5, 12, 13, 20, 26])
def test_starting_in_mid_epoch_gives_the_rest_of_the_unbroken_order(start: int) -> None:
    split = examples(100)
    unbroken = TrainingBatches(split, batch_size=8, seed=3)
    whole = ids(list(unbroken)) + ids(list(unbroken)) + ids(list(unbroken))
    resumed = TrainingBatches(split, batch_size=8, seed=3, start=start)
    rest = ids(list(resumed))
    assert rest == whole[start : (start // 13 + 1) * 13]
    other = TrainingBatches(split, batch_size=8, seed=3)
    other.load_state_dict(resumed.state_dict())
    assert ids(list(other)) == ids(list(resumed))


def test_stop_ends_the_last_epoch_early_and_then_gives_nothing() -> None:
    batches = TrainingBatches(examples(100), batch_size=8, seed=3, start=10, stop=15)
    assert [len(list(batches)) for _ in range(3)] == [3, 2, 0]


@pytest.mark.parametrize("size", [100, 96, 101, 98, 97])
def test_two_ranks_together_see_the_batches_of_one_process(size: int) -> None:
    split = examples(size)
    joined = list(TrainingBatches(split, batch_size=8, seed=0))
    ranks = [list(TrainingBatches(split, batch_size=8, seed=0, rank=rank, world=2)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    for whole, left, right in zip(joined, *ranks, strict=False):
        assert len(left.ids) == len(right.ids)
        both = set(left.ids.tolist()) | set(right.ids.tolist())
        assert len(both) == 2 * len(left.ids)
        assert both <= set(whole.ids.tolist())
        if len(whole.ids) == 8:
            assert len(both) == 8


@pytest.mark.parametrize(
    ("size", "batch_size", "world", "used"),
    [
        (100, 32, 1, 100),
        (97, 32, 1, 96),
        (98, 32, 1, 98),
        (1, 32, 1, 1),
        (98, 32, 2, 96),
        (101, 32, 2, 100),
        (5, 1, 1, 5),
        (3, 4, 2, 2),
    ],
)
def test_a_last_partial_batch_is_kept_trimmed_or_dropped(size: int, batch_size: int, world: int, used: int) -> None:
    assert examples_per_epoch(size, batch_size, world) == used
    batches = list(TrainingBatches(examples(size), batch_size=batch_size, seed=0, world=world))
    assert sum(len(batch.ids) for batch in batches) == used // world


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 2), (17, 2), (9, 4), (1, 2)])
def test_evaluation_gives_each_example_to_exactly_one_rank(size: int, world: int) -> None:
    ranks = [list(EvaluationBatches(examples(size), batch_size=8, rank=rank, world=world)) for rank in range(world)]
    assert sorted(chain(*(chain(*ids(rank)) for rank in ranks))) == list(range(7, size + 7))
    assert len({len(rank) for rank in ranks}) == 1  # else collective calls would wait for ever


def test_evaluation_is_in_order_and_copies_nothing() -> None:
    split = examples(20)
    batches = list(EvaluationBatches(split, batch_size=8))
    assert list(chain(*ids(batches))) == list(range(7, 27))
    assert batches[0].inputs.data_ptr() == split.inputs.data_ptr()


def test_batch_size_that_devices_cannot_share_is_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"multiple of the number of devices \(2\)\. Found `batch_size = 5`"):
        TrainingBatches(examples(20), batch_size=5, seed=0, world=2)


def test_fewer_examples_than_devices_are_refused() -> None:
    with pytest.raises(DataError, match="1 examples, too few for 2 devices"):
        TrainingBatches(examples(1), batch_size=8, seed=0, world=2)
