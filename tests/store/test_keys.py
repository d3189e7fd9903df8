import io

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sk_aft._data._images import load_image
from sk_aft._data._rows import as_rows
from sk_aft.store import model_digest, row_digests


def digests(X):
    return row_digests(as_rows(X))


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def encoded(image, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format)
    return buffer.getvalue()


TEXTS = ["a text", "", "zwölf Boxkämpfer", "a text"]


@pytest.mark.parametrize(
    "container",
    [
        tuple,
        np.array,
        objects,
        pd.Series,
        lambda x: pd.Series(x, dtype=object, index=list("dcba")),
        lambda x: pd.Series(x, dtype="category"),
        lambda x: pd.DataFrame({"text": x}),
        pl.Series,
        lambda x: pl.DataFrame({"text": x}),
        lambda x: [(text,) for text in x],
        lambda x: [np.str_(text) for text in x],
    ],
)
def test_texts_have_one_key_whatever_holds_them(container):
    assert digests(container(TEXTS)) == digests(TEXTS)
    first, second, third, fourth = digests(TEXTS)
    assert first == fourth
    assert len({first, second, third}) == 3


@given(st.lists(st.text(), min_size=2, max_size=6))
def test_texts_have_equal_keys_if_and_only_if_they_are_equal(texts):
    texts = [text + " " for text in texts]  # not all of them paths of images
    keys = digests(texts)
    assert keys == [digests([text])[0] for text in texts]
    for a, key in zip(texts, keys, strict=True):
        assert len(key) == 16
        assert [key == other for other in keys] == [a == text for text in texts]


def test_a_text_that_is_no_unicode_has_a_key():
    assert digests(["\ud800", "\ud801"])[0] != digests(["\ud801"])[0]


TABLE = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize(
    "container",
    [
        lambda x: x.tolist(),
        lambda x: [tuple(row) for row in x.tolist()],
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(object),
        pd.DataFrame,
        lambda x: pd.DataFrame(x, dtype="Float64"),
        lambda x: pl.DataFrame(x, schema=list("abc")),
    ],
    ids=["lists", "tuples", "fortran", "strided", "objects", "pandas", "nullable", "polars"],
)
def test_numbers_have_one_key_whatever_holds_them(container):
    assert digests(container(TABLE)) == digests(TABLE)
    assert len(set(digests(TABLE))) == len(TABLE)


def test_a_row_has_the_key_that_it_has_alone():
    assert digests(TABLE[[3, 1]]) == [digests(TABLE)[3], digests(TABLE)[1]]
    assert digests(TABLE[3:4]) == digests(TABLE)[3:4]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float32),
        lambda x: x.view(np.int64),
        lambda x: x[:, :2],
        lambda x: x[:, ::-1],
        lambda x: np.nextafter(x, 9),
        lambda x: x.reshape(5, 3, 1),
        lambda x: x.reshape(5, 1, 3),
    ],
)
def test_other_numbers_dtypes_and_shapes_have_other_keys(change):
    assert not set(digests(change(TABLE))) & set(digests(TABLE))


def test_empty_columns_apart_the_shape_of_an_image_counts():
    flat = np.arange(24, dtype=np.uint8)
    shapes = [(1, 4, 6), (1, 6, 4), (1, 2, 4, 3), (1, 4, 2, 3)]
    assert len({digests(flat.reshape(shape))[0] for shape in shapes}) == len(shapes)


def test_an_image_has_one_key_as_array_in_a_batch_in_a_list_and_as_pil_image(photographs):
    keys = digests(photographs)
    assert digests(list(photographs)) == keys
    assert digests(objects(list(photographs))) == keys
    assert digests([Image.fromarray(image) for image in photographs]) == keys
    assert digests(pd.Series([Image.fromarray(image) for image in photographs])) == keys
    assert digests(np.asfortranarray(photographs)) == keys
    smaller = photographs[0][:32]
    assert digests([*photographs, smaller])[:-1] == keys
    assert len({*keys, *digests([smaller])}) == len(photographs) + 1


def test_grey_images_have_one_key_as_array_and_as_pil_image(photographs):
    grey = np.ascontiguousarray(photographs[..., 0])
    assert digests([Image.fromarray(image) for image in grey]) == digests(grey)
    assert not set(digests(grey)) & set(digests(photographs))


def test_channels_first_is_the_same_image(photographs):
    assert digests(np.moveaxis(photographs, 3, 1)) == digests(photographs)


def test_a_file_has_one_key_as_path_and_as_bytes(photographs, tmp_path):
    contents = [encoded(image) for image in photographs[:3]]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    keys = digests(contents)
    assert digests(paths) == keys
    assert digests([str(path) for path in paths]) == keys
    assert digests(pl.Series([str(path) for path in paths])) == keys
    assert digests(pl.Series(contents)) == keys
    assert digests([bytearray(content) for content in contents]) == keys
    assert digests([memoryview(content) for content in contents]) == keys
    assert len(set(keys)) == 3


def test_a_moved_file_is_the_same_row_and_a_changed_one_is_a_new_row(photographs, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(photographs[0]))
    before = digests([path])
    moved = path.rename(tmp_path / "b.png")
    assert digests([moved]) == before
    moved.write_bytes(encoded(photographs[1]))
    assert digests([moved]) != before


def test_a_text_is_not_the_file_that_holds_it():
    assert digests([b"abc"]) != digests(["abc"])


def test_images_that_differ_in_their_palette_differ():
    def of_colour(*rgb):
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, *rgb])
        return image

    images = [of_colour(255, 0, 0), of_colour(0, 0, 255)]
    assert not np.array_equal(load_image(images[0], 0), load_image(images[1], 1))
    first, second = digests(images)
    assert first != second


@pytest.mark.parametrize("mode", ["HSV", "YCbCr"])
def test_images_that_differ_in_their_mode_differ(mode):
    images = [Image.new("RGB", (4, 4), (10, 200, 90)), Image.new(mode, (4, 4), (10, 200, 90))]
    assert not np.array_equal(load_image(images[0], 0), load_image(images[1], 1))
    first, second = digests(images)
    assert first != second


def test_a_pil_image_that_lost_its_end_names_the_row(photographs):
    half = Image.open(io.BytesIO(encoded(photographs[0])[:-200]))
    with pytest.raises(ValueError, match=r"Row 1 .* is not a readable image"):
        digests([Image.fromarray(photographs[0]), half])


def test_a_models_digest_does_not_depend_on_the_order_of_its_entries():
    digest = model_digest({"type": "a", "size": 3})
    assert model_digest({"size": 3, "type": "a"}) == digest
    assert len(digest) == 16


def test_a_models_digest_changes_with_every_entry():
    fingerprints = [
        {"type": "a"},
        {"type": "b"},
        {"type": "a", "size": 3},
        {"type": "a", "size": "3"},
        {"type": "a", "size": None},
        {"type": ["a"]},
    ]
    assert len({model_digest(fingerprint) for fingerprint in fingerprints}) == len(fingerprints)
