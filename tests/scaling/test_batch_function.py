"""`as_batch_function` without an engine."""

import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from sk_aft import FineTunedFeatureExtractor, FoundationFeatureExtractor, TeacherPredictions
from sk_aft.store import FeatureStore
from tests._fine_tuning.linear_layers import LinearLayers
from tests.conftest import TEXTS as SENTENCES
from tests.scaling.models import CountedModel, extractor_of, features_of

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")
cloudpickle = pytest.importorskip("cloudpickle")

BATCHES = {
    "lists": dict,
    "arrays": lambda columns: {name: np.array(column) for name, column in columns.items()},
    "pandas": partial(pandas.DataFrame, index=[7, 7, 9]),
    "polars": polars.DataFrame,
    "table": pyarrow.table,
    "record batch": pyarrow.record_batch,
}
COLUMNS = {"id": [1, 2, 3], "text": ["I lost my card", "why", "the rate changed"]}


def matrix_of(batch, output="features"):
    """Return the column of features of any batch."""
    column = batch[output]
    if hasattr(column, "to_pylist"):
        column = column.to_pylist()
    rows = [np.full(len(column[0]), np.nan) if row is None else row for row in column]
    return np.array(rows, dtype=np.float32)


def names_of(batch):
    if hasattr(batch, "schema"):
        return list(batch.schema if isinstance(batch, polars.DataFrame) else batch.schema.names)
    return list(batch)


def missing_in(batch):
    """Return which rows of any batch have no features."""
    column = batch["features"]
    if isinstance(batch, dict):
        assert column.dtype == np.float32
        return np.isnan(column).all(axis=1).tolist()
    if isinstance(batch, pandas.DataFrame):
        return column.isna().tolist()
    rows = column.to_list() if isinstance(batch, polars.DataFrame) else column.to_pylist()
    return [row is None for row in rows]


@pytest.fixture
def bert(encoder_directory):
    return FoundationFeatureExtractor(encoder_directory("bert"), cache=None)


@pytest.fixture(params=BATCHES)
def make(request):
    return BATCHES[request.param]


def test_a_batch_comes_back_with_one_more_column(bert, make):
    batch = make(COLUMNS)
    done = bert.as_batch_function("text", output="vector")(batch)
    assert type(done) is type(batch)
    expected = bert.fit_transform(COLUMNS["text"]).features
    np.testing.assert_allclose(matrix_of(done, "vector"), expected, atol=1e-6)
    assert names_of(batch) == ["id", "text"]
    assert names_of(done) == ["id", "text", "vector"]
    assert list(done["id"]) == list(batch["id"])


def test_features_are_float32_of_one_width_in_each_kind_of_batch(bert):
    function = bert.as_batch_function("text")
    array = function(COLUMNS)["features"]
    assert (array.dtype, array.shape) == (np.float32, (3, 32))
    lists = pyarrow.list_(pyarrow.float32(), 32)
    assert function(pandas.DataFrame(COLUMNS)).dtypes["features"] == pandas.ArrowDtype(lists)
    assert function(pyarrow.table(COLUMNS)).schema.field("features").type == lists
    dtype = function(polars.DataFrame(COLUMNS)).schema["features"]
    assert dtype == polars.Array(polars.Float32, 32)


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_the_function_can_be_pickled_and_holds_no_weights(bert, library):
    function = bert.as_batch_function("text")
    expected = function(COLUMNS)["features"]
    pickled = library.dumps(function)
    assert len(pickled) < 3_000
    np.testing.assert_array_equal(pickle.loads(pickled)(COLUMNS)["features"], expected)


def test_a_function_of_a_script_travels_to_a_process_that_cannot_import_it(tmp_path):
    weights = np.arange(3.0)

    def count(texts):
        return np.array([[len(text)] for text in texts]) * weights

    function = FoundationFeatureExtractor(count, cache=None).fit(["a"]).as_batch_function("text")
    (tmp_path / "function.pkl").write_bytes(pickle.dumps(function))
    code = (
        "import pickle, sys; function = pickle.load(open(sys.argv[1], 'rb')); "
        "print(function({'text': ['aa', 'a']})['features'].tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "function.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[0.0, 2.0, 4.0], [0.0, 1.0, 2.0]]"


def test_copies_in_a_process_load_the_models_once(tmp_path):
    model = CountedModel(tmp_path)
    pickled = pickle.dumps(extractor_of(model).as_batch_function("text"))
    for _ in range(5):
        pickle.loads(pickled)({"text": ["a"]})
    assert model.count("loaded") == 1


def test_a_process_keeps_the_models_of_two_functions(tmp_path):
    models, functions = [], []
    for name in "abc":
        (tmp_path / name).mkdir()
        models.append(CountedModel(tmp_path / name))
        functions.append(pickle.dumps(extractor_of(models[-1]).as_batch_function("text")))
    for number in (0, 1, 0, 2, 0, 1):
        pickle.loads(functions[number])({"text": ["a"]})
    assert [model.count("loaded") for model in models] == [1, 2, 1]


def test_threads_of_a_process_share_the_models(tmp_path):
    model = CountedModel(tmp_path, seconds=0.01)
    pickled = pickle.dumps(extractor_of(model).as_batch_function("text"))
    texts = [[f"{number} {row}" for row in range(3)] for number in range(8)]

    def features(batch):
        return pickle.loads(pickled)({"text": batch})["features"]

    with ThreadPoolExecutor(8) as pool:
        for done, batch in zip(pool.map(features, texts), texts, strict=True):
            np.testing.assert_array_equal(done, features_of(batch))
    assert model.count("loaded") == 1


def test_an_empty_batch_has_the_types_of_others_and_loads_no_model(tmp_path):
    model = CountedModel(tmp_path)
    function = pickle.loads(pickle.dumps(extractor_of(model).as_batch_function("text")))
    n_batches = model.count("batch")
    frame, table = pandas.DataFrame({"text": ["a"]}), pyarrow.table({"text": ["a"]})
    empty = function(frame[:0]), function(table[:0]), function(polars.DataFrame(frame)[:0])
    array = function({"text": []})["features"]
    assert (model.count("loaded"), model.count("batch")) == (0, n_batches)
    assert empty[0].dtypes.equals(function(frame).dtypes)
    assert empty[1].schema == function(table).schema
    assert empty[2].schema == function(polars.DataFrame(frame)).schema
    assert (array.dtype, array.shape) == (np.float32, (0, 8))


def test_wrong_columns_are_named(bert):
    with pytest.raises(ValueError, match=r"no column 'txt'; its columns are \['id', 'text'\]"):
        bert.as_batch_function("txt")(COLUMNS)
    with pytest.raises(ValueError, match="has a column 'id' already"):
        bert.as_batch_function("text", output="id")(COLUMNS)
    with pytest.raises(ValueError, match="output='text' has to be a string that names a new"):
        bert.as_batch_function("text", output="text")
    with pytest.raises(ValueError, match="has to be the name of one column"):
        bert.as_batch_function()
    with pytest.raises(ValueError, match="leave column out"):
        FoundationFeatureExtractor({"text": bert.model}).as_batch_function("text")
    with pytest.raises(TypeError, match=r"A batch has to be a dict.*got a list"):
        bert.as_batch_function("text")(COLUMNS["text"])


def test_what_only_rows_could_tell_needs_a_fitted_extractor():
    with pytest.raises(ValueError, match=r"'features_of' reads.*fit the extractor on a few rows"):
        FoundationFeatureExtractor(features_of).as_batch_function("text")
    with pytest.raises(ValueError, match=r"learns from labels: call fit\(X, y\)"):
        FineTunedFeatureExtractor("minilm").as_batch_function("text")


def test_soft_targets_are_refused():
    teacher = TeacherPredictions(LogisticRegression())
    with pytest.raises(ValueError, match="adds features, and TeacherPredictions"):
        FoundationFeatureExtractor(["minilm", teacher]).as_batch_function("text")


def test_a_fine_tuned_model_gives_its_features():
    X = np.random.default_rng(0).normal(size=(20, 1))
    tuned = FineTunedFeatureExtractor(LinearLayers(), objective="linear", n_steps=2, cache=None)
    tuned.fit(X, np.arange(20) % 2)
    done = tuned.as_batch_function("x")({"x": X[:5]})
    np.testing.assert_allclose(done["features"], tuned.transform(X[:5]).features, rtol=1e-5)


def test_an_unreadable_row_is_named_with_its_batch_and_column(bert, make):
    batch = make({**COLUMNS, "text": ["a", None, "b"]})
    message = r"In a batch of 3 rows: column 'text': Row 1 of X is missing"
    with pytest.raises(ValueError, match=message):
        bert.as_batch_function("text")(batch)


@pytest.mark.filterwarnings("ignore:1 of 3 rows have no features")
def test_masked_rows_are_null(bert, make):
    function = bert.set_params(on_error="mask").as_batch_function("text")
    done = function(make({**COLUMNS, "text": ["a", None, "b"]}))
    assert missing_in(done) == [False, True, False]


def test_a_batch_without_a_readable_row_is_null(bert, make):
    function = bert.set_params(on_error="mask").as_batch_function("text")
    assert missing_in(function(make({**COLUMNS, "text": [None] * 3}))) == [True] * 3


@pytest.mark.filterwarnings("ignore:1 of 2 rows have no features")
def test_a_row_that_one_of_two_models_cannot_read_is_null_as_a_whole():
    def length(texts):
        if "x" in texts:
            raise ValueError("an x")
        return np.array([[len(text)] for text in texts])

    extractor = FoundationFeatureExtractor([features_of, length], cache=None, on_error="mask")
    function = extractor.fit(["a"]).as_batch_function("text")
    assert missing_in(function({"text": ["a", "x"]})) == [False, True]
    assert missing_in(function({"text": ["x"]})) == [True]


def test_rows_are_read_as_in_fit(make):
    def count(texts):
        return np.array([[text.count("a"), len(text)] for text in texts])

    extractor = FoundationFeatureExtractor(count, cache=None).fit(["not a path", "b"])
    done = extractor.as_batch_function("text")(
        make({**COLUMNS, "text": ["a.png", "b.png", "c.png"]})
    )
    assert matrix_of(done).tolist() == [[1, 5], [0, 5], [0, 5]]


def test_later_changes_of_the_extractor_have_no_effect(bert):
    function = bert.as_batch_function("text")
    bert.set_params(model="minilm", on_error="mask")
    assert function(COLUMNS)["features"].shape == (3, 32)


def test_columns_of_a_mapping_are_found(bert, make):
    model = {"text": bert.model, "question": bert.model}
    extractor = FoundationFeatureExtractor(model, cache=None, inputs="other")
    columns = {**COLUMNS, "question": SENTENCES[:3]}
    done = extractor.as_batch_function()(make(columns))
    whole = clone(extractor).set_params(inputs=None).fit_transform(pandas.DataFrame(columns))
    np.testing.assert_allclose(matrix_of(done), whole.features, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_the_device_of_the_workers_need_not_be_here(bert):
    function = bert.set_params(device="cuda").as_batch_function("text")
    assert function.n_features == 32
    with pytest.raises(ValueError, match="device='cuda' cannot be used here"):
        function(COLUMNS)


def test_features_go_where_the_cache_says(bert, tmp_path):
    store = FeatureStore(tmp_path / "store")
    bert.as_batch_function("text")(COLUMNS)
    assert not store.path.exists()
    assert not (tmp_path / "cache").exists()  # the default
    extractor = bert.set_params(cache=store)
    pickle.loads(pickle.dumps(extractor.as_batch_function("text")))(COLUMNS)
    (keys,) = extractor.fit(COLUMNS["text"]).store_keys(COLUMNS["text"]).values()
    assert store.get_many(keys)[1].all()


def test_layers_of_a_model_are_side_by_side(bert):
    extractor = bert.set_params(layers=[1, -1])
    expected = extractor.fit_transform(COLUMNS["text"]).features
    done = clone(extractor).as_batch_function("text")(COLUMNS)["features"]
    np.testing.assert_allclose(done, expected, atol=1e-6)
    assert done.shape == (3, 64)


class TestImages:
    """Batches do not decide what the numbers of an image mean."""

    levels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))

    def extractor(self):
        return FoundationFeatureExtractor("effnet-lite0", cache=None)

    def features(self, images):
        return self.extractor().fit_transform(images).features

    @pytest.mark.parametrize("of_objects", [False, True])
    def test_bytes_of_levels_need_no_fit(self, of_objects):
        images = self.levels.astype(np.uint8)
        batch = {"image": list(images) if of_objects else images}
        done = self.extractor().as_batch_function("image")(batch)
        np.testing.assert_allclose(done["features"], self.features(images), atol=1e-5)

    @pytest.mark.parametrize("images", [levels / 255, levels.astype(np.uint16) * 200])
    def test_other_numbers_need_a_fit(self, images):
        function = self.extractor().as_batch_function("image")
        with pytest.raises(ValueError, match="fit the extractor on a few images of this kind"):
            function({"image": images})

    def test_dark_images_are_read_as_those_of_the_fit(self):
        images = self.levels.astype(np.uint16) * 200
        images[0] //= 256  # alone, of 8 bits
        fitted = self.extractor().fit(images)
        function = fitted.as_batch_function("image")
        expected = fitted.transform(images).features
        for row in range(4):
            done = function({"image": images[row : row + 1]})["features"][0]
            np.testing.assert_allclose(done, expected[row], atol=1e-5)

    def test_images_of_a_mapping_are_watched_too(self):
        function = FoundationFeatureExtractor({"image": "effnet-lite0"}, cache=None)
        with pytest.raises(ValueError, match="fit the extractor on a few images of this kind"):
            function.as_batch_function()({"image": list(self.levels / 255)})


ARROW_TYPES = {
    "string": pyarrow.string(),
    "large string": pyarrow.large_string(),
    "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    "dictionary of large strings": pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string()),
}
if hasattr(pyarrow, "string_view"):
    ARROW_TYPES["string view"] = pyarrow.string_view()


def in_arrow(make, kind):
    return lambda texts: make({"text": pyarrow.array(texts).cast(kind)})


def in_chunks(columns):
    return pyarrow.table(
        {name: pyarrow.chunked_array([a[:2], a[2:]]) for name, a in columns.items()}
    )


def in_frame(library, dtype):
    return lambda texts: library.DataFrame({"text": library.Series(texts, dtype=dtype)})


ARROW_CONTAINERS = {
    "table": pyarrow.table,
    "table of chunks": in_chunks,
    "record batch": pyarrow.record_batch,
}
WITH_NULL = {
    f"{container} of {kind}": in_arrow(make, ARROW_TYPES[kind])
    for container, make in ARROW_CONTAINERS.items()
    for kind in ARROW_TYPES
}
WITH_NULL |= {
    "pandas object": in_frame(pandas, "object"),
    "pandas string": in_frame(pandas, "string"),
    "pandas category": in_frame(pandas, "category"),
    "polars string": in_frame(polars, polars.String),
    "polars category": in_frame(polars, polars.Categorical),
    "dict of lists": lambda texts: {"text": texts},
    "dict of arrays": lambda texts: {"text": np.array(texts, dtype=object)},
}


@pytest.mark.parametrize("name", WITH_NULL)
@pytest.mark.parametrize("is_mapping", [False, True])
@pytest.mark.filterwarnings("ignore:1 of 3 rows have no features")
def test_a_null_of_any_type_takes_no_features_of_another_row(name, is_mapping):
    model = {"text": features_of} if is_mapping else features_of
    extractor = FoundationFeatureExtractor(model, cache=None)
    extractor.fit(pandas.DataFrame({"text": ["a", "b"]}) if is_mapping else ["a", "b"])
    column = None if is_mapping else "text"
    batch = WITH_NULL[name](["a", None, "b"])
    with pytest.raises(ValueError, match="column 'text': Row 1 of X is missing"):
        extractor.as_batch_function(column)(batch)
    done = extractor.set_params(on_error="mask").as_batch_function(column)(batch)
    assert missing_in(done) == [False, True, False]
    features = done["features"]
    rows = features.to_pylist() if hasattr(features, "to_pylist") else list(features)
    np.testing.assert_array_equal([rows[0], rows[2]], features_of(["a", "b"]))


@pytest.mark.filterwarnings("ignore:1 of 3 rows have no features")
@pytest.mark.parametrize("make", [pyarrow.table, pyarrow.record_batch])
def test_images_of_an_arrow_table_may_be_null(make, photographs):
    image = pytest.importorskip("PIL.Image")
    files = []
    for photograph in photographs[:2]:
        file = io.BytesIO()
        image.fromarray(photograph).save(file, "PNG")
        files.append(file.getvalue())
    rows = pyarrow.array([files[0], None, files[1]])
    struct = [None if row is None else {"bytes": row, "path": None} for row in rows.to_pylist()]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})

    def means(images):
        return np.array([np.asarray(image, dtype=float).mean((0, 1)) for image in images])

    function = (
        FoundationFeatureExtractor(means, cache=None, on_error="mask")
        .fit(files)
        .as_batch_function("image")
    )
    for column in (rows, rows.dictionary_encode(), pyarrow.array(struct, kind)):
        done = function(make({"image": column}))
        assert missing_in(done) == [False, True, False]
        found = [done["features"].to_pylist()[row] for row in (0, 2)]
        np.testing.assert_allclose(found, means(photographs[:2]), rtol=1e-6)
