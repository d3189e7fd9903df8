from importlib.resources import files

import numpy as np
import pytest

from sk_aft.datasets import load_banking77, load_fashion_mnist

DATA = files("sk_aft.datasets") / "data"
LOADERS = [load_banking77, load_fashion_mnist]
both = pytest.mark.parametrize("load", LOADERS)


def as_bytes(row):
    return row.encode() if isinstance(row, str) else row.tobytes()


def contents(rows):
    return {as_bytes(row) for row in rows}


@pytest.mark.parametrize(("subset", "n_rows"), [("train", 10_003), ("test", 3_080)])
def test_banking77_is_complete(subset, n_rows):
    bunch = load_banking77(subset=subset)
    assert len(bunch.data) == len(bunch.target) == n_rows
    assert all(type(text) is str and text for text in bunch.data)
    assert bunch.target_names == np.unique(bunch.target).tolist()
    assert len(bunch.target_names) == 77


def test_banking77_test_rows_are_balanced():
    _, counts = np.unique(load_banking77(subset="test").target, return_counts=True)
    assert set(counts) == {40}


def test_banking77_keeps_line_breaks_inside_texts():
    assert sum("\n" in text for text in load_banking77().data) > 0


@pytest.mark.parametrize(("subset", "per_class"), [("train", 200), ("test", 100)])
def test_fashion_mnist_is_balanced(subset, per_class):
    bunch = load_fashion_mnist(subset=subset)
    assert bunch.data.shape == (10 * per_class, 28, 28)
    assert bunch.data.dtype == np.uint8
    assert (bunch.data.min(), bunch.data.max()) == (0, 255)
    names, counts = np.unique(bunch.target, return_counts=True)
    assert set(names) == set(bunch.target_names)
    assert set(counts) == {per_class}


@both
def test_training_and_test_rows_are_disjoint(load):
    assert not contents(load(subset="train").data) & contents(load(subset="test").data)


@both
def test_draws_are_balanced_and_of_the_training_rows(load):
    everything = load()
    drawn = load(labels_per_class=7, random_state=3)
    names, counts = np.unique(drawn.target, return_counts=True)
    assert set(names) == set(everything.target_names)
    assert set(counts) == {7}
    labels = dict(zip(map(as_bytes, everything.data), everything.target, strict=True))
    assert [labels[as_bytes(row)] for row in drawn.data] == drawn.target.tolist()
    assert len(contents(drawn.data)) == len(drawn.data)


@both
def test_random_state_determines_the_draw(load):
    one, same, other = (
        load(labels_per_class=5, random_state=state, return_X_y=True)[0] for state in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@both
def test_return_X_y_returns_the_same_rows(load):
    X, y = load(subset="test", return_X_y=True)
    bunch = load(subset="test")
    assert np.array_equal(X, bunch.data)
    assert np.array_equal(y, bunch.target)


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "valid"}, '"train" or "test"'),
        ({"labels_per_class": 0}, "positive integer"),
        ({"labels_per_class": 2.5}, "positive integer"),
        ({"labels_per_class": 1000}, "has only"),
    ],
)
def test_unusable_arguments_are_explained(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


@both
def test_credits_and_licences_ship_with_the_data(load):
    credit = load(subset="test").DESCR
    assert "Casanueva" in credit
    assert "Creative Commons Attribution 4.0" in credit
    assert "Xiao" in credit
    assert "Zalando" in (DATA / "fashion_mnist_LICENSE.txt").read_text(encoding="utf-8")


def test_the_data_is_small():
    assert sum(len(file.read_bytes()) for file in DATA.iterdir()) < 2_000_000
