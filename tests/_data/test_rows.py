import io
import pickle
import re
import sys
from collections import UserList
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from PIL import Image

from sk_aft._data._images import IMAGE_SUFFIXES, image_shape, load_image
from sk_aft._data._rows import as_rows

TEXTS = ["one", "two words", ""]


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def encoded(image, format="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        objects,
        lambda x: np.array(x).reshape(-1, 1),
        lambda x: [[text] for text in x],
        lambda x: [np.str_(text) for text in x],
        pd.Series,
        lambda x: pd.Series(x, dtype=object),
        lambda x: pd.Series(x, dtype="string"),
        pd.Index,
        lambda x: pd.DataFrame({"text": x}),
        lambda x: pd.DataFrame({"text": x}, index=[7, 7, 7]),
        pl.Series,
        lambda x: pl.DataFrame({"text": x}),
    ],
)
def test_texts_come_in_any_container(container):
    rows = as_rows(container(TEXTS))
    assert rows.kind == "text"
    assert len(rows) == 3
    assert rows.values.tolist() == TEXTS
    assert {type(text) for text in rows.values} == {str}


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "container",
    [
        np.array,
        lambda x: x.tolist(),
        lambda x: tuple(map(tuple, x.tolist())),
        lambda x: [np.array(row) for row in x],
        lambda x: x.astype(object),
        pd.DataFrame,
        lambda x: pd.DataFrame(x, columns=["a", "b"], dtype="Float64"),
        lambda x: pd.DataFrame(x, dtype=object),
        lambda x: pl.DataFrame(x, schema=["a", "b"]),
    ],
)
def test_numbers_come_in_any_container(container):
    table = np.array([[1.5, 2], [3, 4], [5, 6]])
    rows = as_rows(container(table))
    assert rows.kind == "numeric"
    assert rows.values.dtype.kind == "f"
    np.testing.assert_array_equal(rows.values, table)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_a_table_keeps_its_dtype_and_is_not_copied(dtype):
    table = np.array([[0, 1], [1, 0]], dtype=dtype)
    assert np.shares_memory(as_rows(table).values, table)


def test_columns_of_several_number_types_become_floats():
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    np.testing.assert_array_equal(as_rows(frame).values, [[1, 0.5, 1], [2, 1.5, 0]])


# ---------------------------------------------------------------- images


def same_images(rows, images):
    assert rows.kind == "image"
    assert len(rows) == len(images)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(rows.image(row), image)


@pytest.mark.parametrize(
    "container",
    [
        np.array,
        list,
        lambda x: objects(list(x)),
        lambda x: np.moveaxis(x, 3, 1),
        lambda x: pd.Series(list(x)),
        lambda x: pd.DataFrame({"image": list(x)}),
        lambda x: [Image.fromarray(image) for image in x],
        lambda x: tuple(Image.fromarray(image) for image in x),
        lambda x: objects([Image.fromarray(image) for image in x]),
        lambda x: pd.Series([Image.fromarray(image) for image in x]),
        lambda x: pd.DataFrame({"image": [Image.fromarray(image) for image in x]}),
        lambda x: [encoded(Image.fromarray(image)) for image in x],
        lambda x: [bytearray(encoded(Image.fromarray(image))) for image in x],
        lambda x: pd.Series([encoded(Image.fromarray(image)) for image in x]),
        lambda x: pl.Series([encoded(Image.fromarray(image)) for image in x]),
        lambda x: pl.DataFrame({"image": [encoded(Image.fromarray(image)) for image in x]}),
    ],
)
def test_images_come_in_any_container(container, photographs):
    same_images(as_rows(container(photographs[:3])), photographs[:3])


@pytest.mark.parametrize("kind", [None, "image"])
@pytest.mark.parametrize(
    "container",
    [
        list,
        lambda x: [str(path) for path in x],
        lambda x: np.array([str(path) for path in x]),
        lambda x: pd.Series(x),
        lambda x: pd.Series([str(path) for path in x]),
        lambda x: pd.DataFrame({"path": [str(path) for path in x]}),
        lambda x: pl.Series([str(path) for path in x]),
    ],
)
def test_paths_of_images_come_in_any_container(container, kind, photographs, tmp_path):
    paths = []
    for row, suffix in enumerate((".png", ".PNG", ".bmp")):
        paths.append(tmp_path / f"photograph {row}{suffix}")
        Image.fromarray(photographs[row]).save(paths[-1])
    same_images(as_rows(container(paths), kind=kind), photographs[:3])


def test_grey_images_are_two_dimensional(photographs):
    grey = photographs[..., 0]
    same_images(as_rows(grey), grey)
    same_images(as_rows([Image.fromarray(image) for image in grey]), grey)
    same_images(as_rows([encoded(Image.fromarray(image)) for image in grey]), grey)


@pytest.mark.parametrize(
    "shapes",
    [[(4, 5), (6, 7)], [(4, 5), (4, 6)], [(4, 5, 3), (6, 5, 3)], [(4, 5, 3), (4, 5)]],
    ids=str,
)
def test_images_of_several_shapes(shapes):
    images = [np.full(shape, 7, dtype=np.uint8) for shape in shapes]
    same_images(as_rows(images), images)


def test_a_file_with_another_suffix_is_an_image_where_images_are_expected(photographs, tmp_path):
    path = tmp_path / "photograph.data"
    Image.fromarray(photographs[0]).save(path, "PNG")
    assert as_rows([str(path)]).kind == "text"
    same_images(as_rows([str(path)], kind="image"), photographs[:1])
    same_images(as_rows([path]), photographs[:1])


def test_texts_that_mention_an_image_are_texts():
    assert as_rows(["see logo.png", "and nothing"]).kind == "text"
    assert as_rows(["see logo.png for it", "a.png."]).kind == "text"
    assert as_rows([".png"]).kind == "text"


def test_a_text_that_ends_like_a_file_is_a_text_where_texts_are_expected():
    rows = as_rows(["why can I not open logo.png"], kind="text")
    assert rows.kind == "text"


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_strings_that_all_end_like_image_files_are_paths(suffix):
    assert as_rows([f"a{suffix}", f"b/c{suffix.upper()}"]).kind == "image"


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 1, 28, 28)])
def test_channels_first_is_recognised(shape):
    assert as_rows(np.zeros(shape)).values.shape == (shape[0], *shape[2:], shape[1])


@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 5, 5, 1), (2, 5, 5, 4), (2, 3, 3, 3)])
def test_channels_last_is_left_alone(shape):
    images = np.zeros(shape)
    assert as_rows(images).values is images


def test_opaque_images_and_palettes_become_rgb(photographs):
    image = Image.fromarray(photographs[0])
    palette = image.quantize(64)
    with_alpha = image.copy()
    with_alpha.putalpha(255)
    rows = as_rows([image, with_alpha, palette])
    np.testing.assert_array_equal(rows.image(1), photographs[0])
    np.testing.assert_array_equal(rows.image(2), np.asarray(palette.convert("RGB")))


DEEP = np.linspace(0, 65535, 16, dtype=np.uint16).reshape(4, 4)


@pytest.mark.parametrize(
    "image",
    [
        encoded(Image.fromarray(DEEP)),  # as X-rays come
        DEEP,
        Image.fromarray(DEEP),
        Image.fromarray(DEEP.astype(np.int32)),
        Image.fromarray(np.float32(DEEP / 65535)),
    ],
    ids=["PNG", "array", "I;16", "I", "F"],
)
def test_grey_images_of_more_than_eight_bits_keep_their_contrast(image):
    assert len(np.unique(as_rows([image]).in_float_range().image(0))) == 16


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_whole_numbers_from_0_to_255_are_eight_bits(photographs, dtype):
    same_images(as_rows(photographs.astype(dtype)), photographs)
    same_images(as_rows(photographs.astype(dtype).tolist()), photographs)
    assert as_rows(photographs.astype(dtype)).image(0).dtype == np.uint8


@pytest.mark.parametrize("image", [DEEP * np.int64(2), np.array([[-1, 3]])])
def test_whole_numbers_beyond_8_and_16_bits_say_how_to_scale(image):
    with pytest.raises(ValueError, match=r"have to be 0 to (255|65535), got .*scale them"):
        as_rows(image[None]).in_float_range().image(0)


def test_the_shape_of_an_image_is_known_without_decoding(photographs, tmp_path):
    image = Image.fromarray(photographs[0])
    whole = encoded(image)
    grey = encoded(image.convert("L"))
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(whole[: len(whole) // 2])
    assert image_shape(whole, 0) == image_shape(image, 0) == image_shape(truncated, 0)
    assert image_shape(whole, 0) == image_shape(photographs[0], 0) == (64, 64, 3)
    assert image_shape(grey, 0) == load_image(grey, 0).shape == (64, 64)


# ---------------------------------------------------------------- what is not rows


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (["a", 1], "row 0 is text and row 1 is of type int"),
        (["a", "b", b"c"], "row 0 is text and row 2 is bytes"),
        ([Path("a.png"), "a.png"], "row 0 is a path and row 1 is text"),
        ([np.zeros((2, 2)), "a"], "row 0 is an image array and row 1 is text"),
        ([Image.new("L", (2, 2)), np.zeros((2, 2))], "row 0 is a PIL image and row 1 is an image"),
        (pd.Series(["a", 2.5]), "row 0 is text and row 1 is of type float"),
        (objects(["a", ["b"]]), "row 0 is text and row 1 is of type list"),
    ],
)
def test_mixed_types_name_the_row(X, message):
    with pytest.raises(ValueError, match=f"X mixes types: {message}"):
        as_rows(X)


@pytest.mark.parametrize(
    "X",
    [
        ["a", None],
        ("a", None),
        ["a", np.nan],
        ["a", pd.NA],
        objects(["a", None]),
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype=object),
        pd.Series(["a", None], dtype="string"),
        pd.DataFrame({"text": ["a", None]}),
        pl.Series(["a", None]),
        pl.DataFrame({"text": ["a", None]}),
        [b"a", None],
        [Path("a.png"), None],
        [Image.new("L", (2, 2)), None],
        [np.zeros((2, 2)), None],
    ],
)
def test_a_missing_value_names_the_row(X):
    with pytest.raises(ValueError, match=r"Row 1 of X is missing .*fill it"):
        as_rows(X)


def test_a_missing_first_row_is_row_0():
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        as_rows([None, "a"])
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        as_rows([None, None])


@pytest.mark.parametrize("X", [[1, 2, 3], np.arange(3.0), pd.Series([1, 2]), pl.Series([1.5])])
def test_one_dimensional_numbers_say_how_to_reshape(X):
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D .*reshape\(-1, 1\)"):
        as_rows(X)


@pytest.mark.parametrize(
    "X",
    [
        [],
        (),
        np.empty((0, 3)),
        np.empty((0, 4, 4, 3)),
        np.array([], dtype=object),
        pd.Series([], dtype=str),
        pd.DataFrame({"text": []}, dtype=object),
        pl.Series([]),
    ],
)
def test_no_rows_are_an_error(X):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0"):
        as_rows(X)


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_of_several_kinds_stay_frames_where_they_are_welcome(library):
    frame = library.DataFrame({"title": ["a", "b", "c"], "number": [1, 2, 3]})
    rows = as_rows(frame, frames=True)
    assert rows.kind == "frame"
    assert rows.values is frame
    for taken in (rows.take(np.array([2, 0])).values, rows[1:3].values):
        assert isinstance(taken, library.DataFrame)
    assert list(rows.take(np.array([2, 0])).values["title"]) == ["c", "a"]
    assert list(rows.concat(rows.take(np.array([1]))).values["number"]) == [1, 2, 3, 2]
    numbers = as_rows(frame[["number"]], frames=True)
    assert numbers.kind == "numeric"
    assert len(numbers.concat(numbers)) == 6
    assert as_rows(frame[["number"]], kind="frame").kind == "frame"
    assert as_rows(frame[["title"]], frames=True).kind == "text"


@pytest.mark.parametrize("library", [pd, pl])
def test_a_frame_with_several_columns_of_texts_asks_for_one(library):
    frame = library.DataFrame({"title": ["a", "b"], "body": ["c", "d"]})
    with pytest.raises(ValueError, match=r"columns \(title, body\) are not all numbers.*X\['text'"):
        as_rows(frame)
    mixed = library.DataFrame({"title": ["a", "b"], "number": [1, 2]})
    with pytest.raises(ValueError, match=r"columns \(title, number\) are not all numbers"):
        as_rows(mixed)


@pytest.mark.parametrize("format", ["csr_matrix", "csc_array"])
def test_sparse_rows_say_how_to_make_them_dense(format):
    with pytest.raises(TypeError, match="dense data is required"):
        as_rows(getattr(scipy.sparse, format)(np.eye(3)))


@pytest.mark.parametrize("X", ["a text", b"bytes"])
def test_a_single_text_is_not_a_list_of_letters(X):
    with pytest.raises(ValueError, match=r"X is a single string: give a list"):
        as_rows(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (None, "X is None"),
        (object(), r"Expected one text or image per row, got an array of shape \(\)"),
        (3, "Expected 2D array, got 0D array"),
        (np.zeros((1, 1, 1, 1, 1)), "Found array with dim 5"),
        (np.zeros((2, 2), dtype=complex), "Complex data not supported"),
        (np.zeros((2, 2), dtype="datetime64[s]"), "Cannot use rows of dtype datetime64"),
        ([{"a": 1}, {"a": 2}], "Row 0 of X is of type dict"),
        ([["a", "b"], ["c"]], "Row 0 of X is of type list"),
        (np.array([[1, "a"], [2, "b"]], dtype=object), "neither numbers nor one text"),
        (np.array([[{}], [{}]], dtype=object), "Row 0 of X is of type dict"),
    ],
)
def test_what_is_no_row_says_what_rows_are(X, message):
    with pytest.raises(ValueError, match=message):
        as_rows(X)


def test_a_table_of_objects_is_refused_as_scikit_learn_does():
    with pytest.raises(TypeError, match="every argument must be a string or a number"):
        as_rows(np.array([[1, {}], [2, 3]], dtype=object))


def test_a_hole_in_a_list_of_numbers_is_the_hole_it_is_in_an_array():
    table = [[1.5, None], [2, 3]]
    rows = as_rows(np.array(table))
    np.testing.assert_array_equal(rows.values, [[1.5, np.nan], [2, 3]])
    np.testing.assert_array_equal(as_rows(table).values, rows.values)


def test_a_sequence_that_is_no_list_is_read_as_one():
    assert as_rows(UserList(TEXTS)).values.tolist() == TEXTS


@pytest.mark.parametrize(
    ("X", "kind", "is_kind"),
    [
        (TEXTS, "numeric", "text"),
        (np.zeros((3, 3)), "text", "numeric"),
        (np.zeros((3, 3)), "image", "numeric"),
        (np.zeros((3, 3, 3)), "numeric", "image"),
        ([b"abc"], "text", "image"),
    ],
)
def test_rows_of_another_kind_are_refused(X, kind, is_kind):
    with pytest.raises(ValueError, match=f"Expected {kind} rows, got {is_kind} rows"):
        as_rows(X, kind=kind)


# ---------------------------------------------------------------- images that cannot be read


def test_a_file_that_is_not_there_names_row_and_path(tmp_path):
    path = tmp_path / "nothing.png"
    rows = as_rows([str(path), str(path)])
    with pytest.raises(ValueError, match=rf"Row 1 \('{re.escape(str(path))}'\) is not a readable"):
        rows.image(1)


def test_a_file_that_is_no_image_names_row_and_path(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=rf"Row 0 \('{re.escape(str(path))}'\).*not known"):
        as_rows([path]).image(0)


def test_bytes_that_are_no_image_name_the_row():
    with pytest.raises(ValueError, match=r"Row 1 \(bytes\) is not a readable image"):
        as_rows([b"one", b"two"]).image(1)


def test_an_image_that_lost_its_end_names_the_row(photographs, tmp_path):
    whole = encoded(Image.fromarray(photographs[0]), "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(whole[:-200])
    for rows in (as_rows([whole, path.read_bytes()]), as_rows([path, path])):
        with pytest.raises(ValueError, match=r"Row 1 \(.*\) is not a readable image"):
            rows.image(1)


def test_a_pil_image_that_lost_its_end_names_the_row(photographs):
    whole = encoded(Image.fromarray(photographs[0]))
    half = Image.open(io.BytesIO(whole[:-200]))
    with pytest.raises(ValueError, match=r"Row 1 .* is not a readable image"):
        as_rows([Image.fromarray(photographs[0]), half]).image(1)


def test_rows_that_were_taken_are_still_named_by_where_they_stood():
    rows = as_rows([b"zero", b"one", b"two"]).take(np.array([2, 0])).take(np.array([0]))
    with pytest.raises(ValueError, match="Row 2 "):
        rows.image(0)


def test_a_missing_pillow_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'sk-aft\[vision\]'"):
        as_rows([b"bytes"]).image(0)


# ---------------------------------------------------------------- rows as an object


def test_taken_rows_are_those_rows():
    rows = as_rows(TEXTS).take(np.array([2, 0]))
    assert rows.values.tolist() == [TEXTS[2], TEXTS[0]]
    assert rows.kind == "text"


def test_rows_can_be_pickled():
    rows = pickle.loads(pickle.dumps(as_rows(TEXTS)))
    assert rows.values.tolist() == TEXTS
