import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import SequenceDataError
from models.sequences.dataset import SequenceData

# Two users, leave-one-out: 7 reads 1 2 3 4 5 | 6 | 7, 9 reads 2 1 | 3 | 2.
LEAVE_ONE_OUT = [
    *[(7, item, place, "train") for place, item in enumerate([1, 2, 3, 4, 5])],
    (7, 6, 5, "valid"),
    (7, 7, 6, "test"),
    (9, 2, 0, "train"),
    (9, 1, 1, "train"),
    (9, 3, 2, "valid"),
    (9, 2, 3, "test"),
]


def data_of(rows, **options):
    user, item, position, split = zip(*rows, strict=True)
    return SequenceData.from_arrays(user, item, position, split, **options)


def histories(examples, max_length=50):
    """(user, history, target) of every example."""
    batch = examples.batch(torch.arange(len(examples)), max_length=max_length)
    found = zip(batch.user.tolist(), batch.item_ids.tolist(), batch.mask.tolist(), batch.target.tolist(), strict=True)
    return [
        (user, [item for item, real in zip(ids, mask, strict=True) if real], target)
        for user, ids, mask, target in found
    ]


def test_last_position_trains_every_prefix():
    found = histories(data_of(LEAVE_ONE_OUT).training_examples("last", max_length=3), max_length=3)
    assert sorted(found) == [(7, [1], 2), (7, [1, 2], 3), (7, [1, 2, 3], 4), (7, [2, 3, 4], 5), (9, [2], 1)]


def test_all_positions_train_windows_cut_from_the_end():
    examples = data_of(LEAVE_ONE_OUT).training_examples("all", max_length=3)
    batch = examples.batch(torch.arange(len(examples)), max_length=3)
    rows = sorted(zip(batch.item_ids.tolist(), batch.targets.tolist(), batch.target.tolist(), strict=True))
    assert rows == [([1, 0, 0], [2, 0, 0], 2), ([2, 0, 0], [1, 0, 0], 1), ([2, 3, 4], [3, 4, 5], 5)]
    assert examples.n_predictions == 5


def test_histories_of_evaluation_hold_all_earlier_rows():
    data = data_of(LEAVE_ONE_OUT)
    assert histories(data.evaluation_examples("valid")) == [(7, [1, 2, 3, 4, 5], 6), (9, [2, 1], 3)]
    assert histories(data.evaluation_examples("test")) == [(7, [1, 2, 3, 4, 5, 6], 7), (9, [2, 1, 3], 2)]


def test_whole_users_held_out():
    rows = [(user, item, place, split) for user, split in ((0, "train"), (1, "valid"), (2, "test"))
            for place, item in enumerate([1 + user, 2 + user, 3 + user])]  # fmt: skip
    data = data_of(rows)
    assert sorted(histories(data.training_examples("last", max_length=5))) == [(0, [1], 2), (0, [1, 2], 3)]
    assert histories(data.evaluation_examples("valid")) == [(1, [2, 3], 4)]
    assert histories(data.evaluation_examples("test")) == [(2, [3, 4], 5)]
    assert histories(data.evaluation_examples("test", every_position=True)) == [(2, [3], 4), (2, [3, 4], 5)]


def test_a_user_whose_only_row_is_a_target_is_counted_not_evaluated():
    data = data_of([(0, 1, 0, "test"), (1, 2, 0, "train"), (1, 3, 1, "test")])
    assert histories(data.evaluation_examples("test")) == [(1, [2], 3)]
    assert data.without_history("test") == 1
    assert (data.has_split("test"), data.has_split("valid")) == (True, False)


def test_row_order_means_nothing():
    shuffled = [LEAVE_ONE_OUT[index] for index in np.random.default_rng(0).permutation(len(LEAVE_ONE_OUT))]
    assert data_of(shuffled).fingerprint == data_of(LEAVE_ONE_OUT).fingerprint


@pytest.mark.parametrize(
    "change",
    [{"item": 5}, {"user": 8}, {"split": "train"}],
)
def test_the_fingerprint_sees_every_column(change):
    first = dict(zip(("user", "item", "position", "split"), LEAVE_ONE_OUT[5], strict=True)) | change
    changed = [*LEAVE_ONE_OUT[:5], tuple(first.values()), *LEAVE_ONE_OUT[6:]]
    assert data_of(changed).fingerprint != data_of(LEAVE_ONE_OUT).fingerprint
    assert data_of(LEAVE_ONE_OUT, n_items=8).fingerprint != data_of(LEAVE_ONE_OUT).fingerprint


def test_counts_are_of_training_rows():
    assert data_of(LEAVE_ONE_OUT).item_counts().tolist() == [0, 2, 2, 1, 1, 1, 0, 0]


def test_training_histories_leave_out_what_is_evaluated():
    rows = [*LEAVE_ONE_OUT, (8, 4, 0, "valid"), (10, 7, 0, "train")]
    items, offsets = data_of(rows).training_histories()
    assert [items[start:end].tolist() for start, end in itertools.pairwise(offsets)] == [
        [1, 2, 3, 4, 5],
        [],
        [2, 1],
        [7],
    ]
    assert items.dtype == offsets.dtype == torch.int64


def test_the_sequence_of_a_user_follows_position_not_the_file():
    data = data_of([(0, 3, 20, "test"), (0, 1, -5, "train"), (0, 2, 9, "train")])
    assert histories(data.evaluation_examples("test")) == [(0, [1, 2], 3)]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only():
    rows = [(user, 1 + (user * 7 + place) % 20, place, "train") for user in range(30) for place in range(4)]
    examples = data_of(rows).training_examples("last", max_length=3)

    def epoch(**options):
        batches = list(examples.shuffled(16, max_length=3, **options))
        return [len(batch) for batch in batches], [pair for batch in batches for pair in pairs(batch)]

    def pairs(batch):
        return list(zip(batch.user.tolist(), map(tuple, batch.item_ids.tolist()), strict=True))

    sizes, order = epoch(seed=1, epoch=1)
    assert sizes == [16] * 5 + [10]
    assert sorted(order) == sorted(pairs(examples.batch(torch.arange(90), max_length=3)))
    assert epoch(seed=1, epoch=1) == (sizes, order)
    assert epoch(seed=1, epoch=1, first=2) == (sizes[2:], order[32:])
    assert epoch(seed=1, epoch=2)[1] != order
    assert epoch(seed=2, epoch=1)[1] != order


def of_lengths(lengths):
    """One user per length, whose items count on from user to user."""
    rows, item = [], 0
    for user, length in enumerate(lengths):
        rows += [(user, item + place + 1, place, "train") for place in range(length)]
        item += length
    return data_of(rows)


def test_batches_by_length_hold_everything_once_and_are_no_wider_than_needed():
    lengths = [2 + user * 7 % 23 for user in range(200)]
    examples = of_lengths(lengths).training_examples("last", max_length=12)

    def batches(**options):
        return list(examples.shuffled(8, max_length=12, seed=3, epoch=1, **options))

    grouped = batches(by_length=True)
    targets = [batch.target.tolist() for batch in grouped]
    everything = sorted(target for batch in batches() for target in batch.target.tolist())
    assert sorted(target for batch in targets for target in batch) == everything
    assert [batch.item_ids.shape[1] for batch in grouped] == [int(batch.lengths.max()) for batch in grouped]
    cells = sum(batch.item_ids.numel() for batch in grouped)
    real = sum(int(batch.mask.sum()) for batch in grouped)
    assert real <= cells < 1.2 * real < 0.8 * 12 * len(examples)  # unsorted, each is 12 wide
    assert [batch.target.tolist() for batch in batches(by_length=True)] == targets
    assert [batch.target.tolist() for batch in batches(by_length=True, first=3)] == targets[3:]
    widths = [batch.item_ids.shape[1] for batch in grouped]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))  # the batches come in random order


def test_reading_by_length_gives_each_example_its_whole_history():
    examples = of_lengths([5, 2, 9, 3]).training_examples("all", max_length=8)
    indices = examples.shortest_first(3)
    assert [index.tolist() for index in indices] == [[1, 3, 0], [2]]
    batch, seen = examples.read(indices[0], max_length=2)
    assert batch.item_ids.tolist() == [[6, 0], [17, 18], [3, 4]]
    assert seen.tolist() == [[6, 0, 0, 0], [17, 18, 0, 0], [1, 2, 3, 4]]
    assert examples.read(indices[0], max_length=9)[0].item_ids.shape == (3, 4)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8).filter(lambda values: max(values) > 1),
    max_length=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_both_ways_train_each_target_exactly_once(lengths, max_length):
    """Items are numbered in reading order, so the target of an input i is always i + 1."""
    rows, item = [], 0
    for user, length in enumerate(lengths):
        for place in range(length):
            item += 1
            rows.append((user, item, place, "train"))
    data = data_of(rows)
    expected = [item for user, item, place, _ in rows if place > 0]
    last = data.training_examples("last", max_length=max_length)
    assert sorted(target for _, _, target in histories(last, max_length)) == expected
    windows = data.training_examples("all", max_length=max_length)
    batch = windows.batch(torch.arange(len(windows)), max_length=max_length)
    assert sorted(batch.targets[batch.mask].tolist()) == expected
    assert (batch.targets[batch.mask] == batch.item_ids[batch.mask] + 1).all()
    assert (last.n_predictions, windows.n_predictions) == (len(expected), len(expected))
    for examples in (last, windows):
        batch = examples.batch(torch.arange(len(examples)), max_length=max_length)
        assert ((batch.item_ids > 0) == batch.mask).all()
        assert (batch.mask.long().diff(dim=1) <= 0).all()  # padding on the right only
        assert (batch.last_item + 1 == batch.target).all()


def test_serving_reads_everything_and_knows_no_target():
    batch, seen = data_of(LEAVE_ONE_OUT).serving_batch([9, 7], max_length=3)
    assert batch.item_ids.tolist() == [[1, 3, 2], [5, 6, 7]]
    assert batch.target.tolist() == [0, 0]
    assert seen.tolist() == [[2, 1, 3, 2, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]]
    with pytest.raises(SequenceDataError, match="no interactions of user 8"):
        data_of(LEAVE_ONE_OUT).serving_batch([7, 8], max_length=3)


def test_a_table_is_read_by_its_columns():
    columns = dict(zip(("user", "item", "position", "split"), zip(*LEAVE_ONE_OUT, strict=True), strict=True))
    frame = pl.DataFrame(columns, schema_overrides={"user": pl.Int32, "item": pl.Int32, "position": pl.Int32})
    assert SequenceData.from_frame(frame).fingerprint == data_of(LEAVE_ONE_OUT).fingerprint

    @dataclasses.dataclass
    class Prepared:
        interactions: pl.DataFrame
        n_items: int

    assert SequenceData.from_prepared(Prepared(frame, 11)).n_items == 11
    with pytest.raises(SequenceDataError, match=r"missing columns \['split'\]"):
        SequenceData.from_frame(frame.drop("split"))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([(0, 0, 0, "train")], {}, "expected ids 1 to 0, got 0 to 0"),
        ([(0, 9, 0, "train")], {"n_items": 8}, "expected ids 1 to 8, got 9 to 9"),
        ([(0, 1, 0, "dev")], {}, "expected one of train, valid, test, got 'dev'"),
        ([(4, 1, 3, "train"), (4, 2, 3, "train")], {}, "user 4 has two rows at position 3"),
    ],
)
def test_unusable_interactions_are_refused(rows, options, message):
    with pytest.raises(SequenceDataError, match=message):
        data_of(rows, **options)


def test_columns_must_match_and_hold_something():
    with pytest.raises(SequenceDataError, match=r"got lengths \[1, 2\]"):
        SequenceData.from_arrays([0, 1], [1], [0], ["train"])
    with pytest.raises(SequenceDataError, match=r"got lengths \[0\]"):
        SequenceData.from_arrays([], [], [], [])


def test_nothing_to_learn_from_and_unknown_splits_are_refused():
    data = data_of([(0, 1, 0, "train"), (1, 2, 0, "train")])
    with pytest.raises(SequenceDataError, match="nothing to learn from"):
        data.training_examples("last", max_length=5)
    with pytest.raises(SequenceDataError, match="expected 'valid' or 'test', got 'train'"):
        data.evaluation_examples("train")
