"""Linear probing on tables whose answer is known."""

import math

import numpy as np
import pytest

from models.evaluation.probing import category_numbers, linear_probe


def table(categories, *, width=4, spread=0.0, seed=0):
    """One corner of a cube per category, with noise; row 0 is padding."""
    noise = np.random.default_rng(seed).normal(size=(len(categories), width))
    return np.eye(width)[np.array(categories) % width] + spread * noise


def wilson(right, asked, z=1.959964):
    """Wilson's interval, written out."""
    share, shrink = right / asked, 1 + z**2 / asked
    half = z / shrink * math.sqrt(share * (1 - share) / asked + z**2 / (4 * asked**2))
    middle = (share + z**2 / (2 * asked)) / shrink
    return middle - half, middle + half


def test_categories_in_corners_are_all_found():
    categories = [0] + [1, 2, 3] * 20
    found = linear_probe(table(categories), categories)
    assert (found.accuracy, found.n_items, found.n_categories, found.left_out) == (1.0, 60, 3, 0)
    assert found.folds == (1.0,) * 5
    assert found.majority == pytest.approx(1 / 3)
    assert (found.low, found.high) == pytest.approx(wilson(60, 60), abs=1e-6)


def test_vectors_that_know_nothing_are_no_better_than_the_largest_category():
    """Equal vectors: every layer answers with the largest category of its fold."""
    categories = [0] + [1] * 30 + [2] * 20
    found = linear_probe(np.ones((51, 3)), categories)
    assert found.accuracy == found.majority == 0.6
    assert (found.low, found.high) == pytest.approx(wilson(30, 50), abs=1e-6)


def test_an_item_is_asked_of_a_layer_that_did_not_learn_from_it():
    """Noise of more columns than items is learnt by heart, and tells nothing of the items that are left."""
    categories = [0] + [1, 2] * 100
    noise = np.random.default_rng(1).normal(size=(201, 400))
    assert linear_probe(noise, categories, penalty=1e-6).accuracy == pytest.approx(0.5, abs=0.12)


def test_four_categories_need_a_multinomial_layer():
    """Angles on a circle: the largest of four linear scores is right, no two of them can be told by a threshold."""
    categories = np.array([0] + [1, 2, 3, 4] * 30)
    angle = categories * math.pi / 2 + np.random.default_rng(2).uniform(-0.5, 0.5, size=121)
    found = linear_probe(np.stack((np.cos(angle), np.sin(angle)), axis=1), categories)
    assert found.accuracy == 1.0


def test_scale_and_shift_of_the_columns_change_nothing():
    categories = [0] + [1, 2, 3] * 30
    vectors = table(categories, spread=0.7)
    first, second = linear_probe(vectors, categories), linear_probe(vectors * [1e-3, 1, 50, 7] + 3.0, categories)
    assert first.accuracy < 1.0
    assert first.folds == pytest.approx(second.folds)


def test_padding_items_without_category_and_small_categories_are_left_out():
    categories = [3, *[1, 2] * 10, 0, 0, 4, 4, 4, 4]  # what stands at padding is not read
    vectors = table(categories)
    vectors[0] = np.nan
    found = linear_probe(vectors, categories)
    assert (found.n_items, found.n_categories, found.left_out) == (20, 2, 6)
    assert linear_probe(vectors, categories, folds=4).n_categories == 3


def test_the_seed_draws_the_folds():
    categories = [0] + [1, 2, 3] * 30
    vectors = table(categories, spread=0.7)
    first, again, other = (linear_probe(vectors, categories, seed=seed).folds for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_vectors_are_not_changed():
    categories = [0] + [1, 2] * 10
    vectors = table(categories)
    vectors.setflags(write=False)
    assert linear_probe(vectors, categories).n_items == 20


@pytest.mark.parametrize(
    ("vectors", "categories", "message"),
    [
        (np.ones((5, 2)), [0, 1, 1, 2], r"one category per row, got \[5, 2\] and \[4\]"),
        (np.ones(5), [0, 1, 1, 2, 2], r"expected vectors \[items \+ 1, width\].*got \[5\]"),
        (np.ones((11, 2)), [0] + [1] * 6 + [2] * 4, r"two or more with at least 5 items each \(one per fold\), got 1"),
        (np.full((21, 2), np.nan), [0] + [1, 2] * 10, "expected finite numbers"),
    ],
    ids=["lengths", "one dimension", "one category", "not finite"],
)
def test_what_cannot_be_probed_is_refused(vectors, categories, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(vectors, categories)


def test_names_are_numbered_in_their_order_and_several_count_under_the_first():
    names = ["War", None, "Drama", "Drama, War", ""]
    assert category_numbers(names).tolist() == [0, 3, 0, 1, 2, 0]
    assert category_numbers(names, separator=", ").tolist() == [0, 2, 0, 1, 1, 0]
