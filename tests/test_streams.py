import pickle
import warnings

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from sk_aft import (
    AFTClassifier,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)
from sk_aft._data._streams import ROWS_PER_BATCH
from sk_aft.backbones import CallableBackbone
from sk_aft.modules import ResNet
from sk_aft.preprocessing import ImageResizer
from sk_aft.store import FeatureStore
from tests._data.test_streams import png

rng = np.random.default_rng(0)
WORDS = np.array(["card", "lost", "bank", "rate", "euro", "pay", "new", "stolen"])
TEXTS = [" ".join(rng.choice(WORDS, 5)) + f" {number}" for number in range(60)]
LABELS = np.array([text.count("card") > 0 for text in TEXTS]).astype(int)


def count_letters(texts):
    return np.array([[text.count(letter) for letter in "abcdeklnrt"] for text in texts])


def colour(images):
    return np.array([np.asarray(image).mean((0, 1)) for image in images])


@pytest.fixture
def letters(tmp_path):
    model = CallableBackbone(count_letters, fingerprint="letters")
    return lambda columns=None, **options: FoundationFeatureExtractor(
        model if columns is None else {columns: model}, cache=tmp_path / "store", **options
    )


def n_stored(tmp_path):
    return FeatureStore(tmp_path / "store").stats()["rows"]


def sources(tmp_path):
    """The same texts, once as a column of a table and as rows alone."""
    table = pa.table({"text": TEXTS, "label": LABELS})
    pq.write_table(table.slice(0, 25), tmp_path / "0.parquet")
    pq.write_table(table.slice(25), tmp_path / "1.parquet")
    dataset = datasets.Dataset(table)
    return {
        "files": (str(tmp_path / "*.parquet"), "text"),
        "data set": (dataset, "text"),
        "iterable data set": (dataset.to_iterable_dataset(), "text"),
        "table": (table, "text"),
        "dicts": (iter(table.to_pylist()), "text"),
        "texts": (iter(TEXTS), None),
        "lists": (iter([TEXTS[:10], TEXTS[10:]]), None),
        "column": (dataset.select_columns("text"), None),
    }


SOURCES = [
    "files",
    "data set",
    "iterable data set",
    "table",
    "dicts",
    "texts",
    "lists",
    "column",
]


@pytest.mark.parametrize("name", SOURCES)
def test_precompute_stores_the_features_of_a_stream(letters, tmp_path, name):
    X, column = sources(tmp_path)[name]
    letters(column).precompute(X)
    assert n_stored(tmp_path) == 60
    rows = letters().fit_transform(TEXTS)
    np.testing.assert_array_equal(rows.features, count_letters(TEXTS))
    assert n_stored(tmp_path) == 60


@pytest.mark.parametrize("name", SOURCES)
def test_a_student_of_a_stream_is_that_of_a_list(letters, tmp_path, name):
    X, column = sources(tmp_path)[name]
    options = {"random_state": 0, "max_epochs": 3, "beta": 1}
    expected = make_pipeline(letters(), AFTClassifier(**options)).fit(TEXTS, LABELS)
    student = make_pipeline(letters(column, inputs=column), AFTClassifier(**options))
    student.fit(X, LABELS)
    np.testing.assert_array_equal(
        student[-1].predict_proba(TEXTS), expected[-1].predict_proba(TEXTS)
    )
    X, _ = sources(tmp_path)[name]
    np.testing.assert_array_equal(student.predict(X), expected.predict(TEXTS))


def test_a_stream_is_resumed(letters, tmp_path):
    def fails_after(n_rows):
        yield from TEXTS[:n_rows]
        raise OSError("the connection was lost")

    batches = (TEXTS[start : start + 20] for start in (0, 20))
    letters().precompute(batches)
    assert n_stored(tmp_path) == 40
    with pytest.raises(OSError, match="connection was lost"):
        letters().precompute(fails_after(50))
    letters().precompute(iter(TEXTS))
    assert n_stored(tmp_path) == 60


def test_errors_and_warnings_count_the_rows_of_the_whole_stream(letters):
    texts = [f"text {number}" for number in range(ROWS_PER_BATCH + 100)]
    texts[5] = texts[ROWS_PER_BATCH + 7] = None
    with pytest.warns(UserWarning, match=rf"2 of {len(texts)} rows .* is row 5") as caught:
        letters(on_error="mask").precompute(iter(texts))
    assert len(caught) == 1
    texts[5] = "a text"
    with pytest.warns(UserWarning, match=rf"The first is row {ROWS_PER_BATCH + 7}:"):
        letters(on_error="mask").precompute(iter(texts))
    with pytest.raises(ValueError, match=rf"Row 7 .* row {ROWS_PER_BATCH} of the stream"):
        letters().precompute(iter(texts))


def test_what_cannot_be_a_stream_says_why(letters, tmp_path):
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        letters().precompute(iter([]))
    with pytest.raises(ValueError, match="X is a single string"):
        letters().precompute("a text")
    with pytest.raises(ValueError, match="X yields rows of type Image, which cannot be kept"):
        letters().fit(iter([Image.new("RGB", (4, 4))]))
    teacher = TeacherPredictions(make_pipeline(TfidfVectorizer(), LogisticRegression()))
    with pytest.raises(ValueError, match="TeacherPredictions learn from all rows at once"):
        FoundationFeatureExtractor(teacher, cache=tmp_path).precompute(iter(TEXTS))
    two = datasets.Dataset.from_dict({"a": TEXTS, "b": TEXTS})
    with pytest.raises(ValueError, match=r"cannot read the columns \['a', 'b'\] of a stream"):
        FoundationFeatureExtractor({"a": len, "b": len}).fit(two)


def test_rows_without_labels_may_be_a_stream(letters):
    options = {"random_state": 0, "max_epochs": 3}
    with sklearn.config_context(enable_metadata_routing=True):
        student = AFTClassifier(**options).set_fit_request(X_unlabeled=True)
        pipe = Pipeline(
            [("extractor", letters()), ("student", student)], transform_input=["X_unlabeled"]
        )
        pipe.fit(TEXTS[:30], LABELS[:30], X_unlabeled=TEXTS[30:])
        expected = pipe.predict_proba(TEXTS)
        pipe.fit(TEXTS[:30], LABELS[:30], X_unlabeled=iter(TEXTS[30:]))
    np.testing.assert_array_equal(pipe.predict_proba(TEXTS), expected)


def test_a_search_reads_the_rows_of_a_data_set(letters):
    dataset = datasets.Dataset.from_dict({"text": TEXTS})
    student = AFTClassifier(random_state=0, max_epochs=2)
    scores = [
        GridSearchCV(student, {"beta": [0, 1]}, cv=2, n_jobs=n_jobs)
        .fit(letters().fit_transform(X), LABELS)
        .cv_results_["mean_test_score"]
        for X, n_jobs in ((TEXTS, 1), (dataset, 1), (dataset, 2))
    ]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


def test_features_without_a_store_are_joined(letters):
    extractor = letters().set_params(cache=None)
    texts = [f"{text} {number}" for number in range(150) for text in TEXTS]
    assert len(texts) > ROWS_PER_BATCH
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = extractor.fit_transform(iter(texts))
    np.testing.assert_array_equal(rows.features, count_letters(texts))
    np.testing.assert_array_equal(rows[8190:8200].features, count_letters(texts[8190:8200]))


def test_rows_with_features_are_pickled_with_their_file(letters):
    rows = letters().fit_transform(iter(TEXTS))
    copied = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copied.features, count_letters(TEXTS))
    assert list(copied[3:5].inputs) == TEXTS[3:5]


def test_images_are_decoded_for_each_batch(tmp_path):
    files = [png(level) for level in range(0, 240, 4)]
    labels = np.arange(60) // 30
    images = datasets.Dataset.from_dict({"image": [{"bytes": f, "path": None} for f in files]})
    images = images.cast_column("image", datasets.Image())
    model = CallableBackbone(colour, fingerprint="colour")
    options = {"random_state": 0, "max_epochs": 3, "early_stopping": True, "module": ResNet}
    options |= {"preprocessor": ImageResizer()}
    students = []
    for X in (files, images):
        extractor = FoundationFeatureExtractor(model, cache=tmp_path)
        pipe = make_pipeline(extractor, AFTClassifier(**options)).fit(X, labels)
        students.append(pipe)
    expected, student = students
    np.testing.assert_array_equal(student.predict_proba(images), expected.predict_proba(files))


def test_an_unreadable_image_of_a_stream_is_named(tmp_path):
    model = CallableBackbone(colour, fingerprint="colour")
    extractor = FoundationFeatureExtractor(model, cache=tmp_path)
    with pytest.raises(ValueError, match=r"Row 2 \(bytes\) is not a readable image"):
        extractor.precompute(iter([png(1), png(2), b"no image"]))


def test_a_model_is_tuned_on_the_rows_of_a_data_set(encoder_directory):
    dataset = datasets.Dataset.from_dict({"text": TEXTS})
    features = [
        FineTunedFeatureExtractor(f"hf:{encoder_directory('bert')}", n_steps=2, cache=None, cv=2)
        .fit_transform(X, LABELS)
        .features
        for X in (TEXTS, dataset)
    ]
    np.testing.assert_array_equal(features[1], features[0])


def test_a_table_of_numbers_is_read_whole():
    table = pa.table({"a": rng.normal(size=60), "b": np.arange(60)})
    student = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(table, LABELS)
    assert student.n_features_in_ == 2
    np.testing.assert_array_equal(student.predict(table), student.predict(table.to_pandas()))


def test_pieces_of_a_stream_train_with_partial_fit(letters):
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    extractor = letters().fit(TEXTS[:10])
    student = AFTClassifier(random_state=0)
    for batch in dataset.iter(20):
        rows = extractor.transform(batch["text"])
        student.partial_fit(rows, batch["label"], classes=[0, 1])
    assert len(student.history_) == 3
    assert isinstance(pd.Series(student.predict(TEXTS)).sum(), np.integer)


def shouted(batch):
    return {"text": [text.upper() for text in batch["text"]]}


@pytest.mark.parametrize("columns", [None, "text"])
def test_a_transform_of_a_data_set_is_honoured(tmp_path, columns):
    def first_letters(texts):
        return np.array([[ord(letter) for letter in text[:3]] for text in texts])

    dataset = datasets.Dataset.from_dict({"text": TEXTS}).with_transform(shouted)
    upper = [text.upper() for text in TEXTS]
    model = CallableBackbone(first_letters, fingerprint="first letters")
    model = model if columns is None else {columns: model}
    extractor = FoundationFeatureExtractor(model, inputs=columns, cache=tmp_path / "store")
    rows = extractor.fit_transform(dataset)
    np.testing.assert_array_equal(rows.features, first_letters(upper))
    assert list(rows.inputs) == upper
    n_rows = n_stored(tmp_path)
    extractor.precompute(dataset)
    assert n_stored(tmp_path) == n_rows


def test_a_transform_may_return_a_column_of_its_own(letters):
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "size": [1] * 60}).with_transform(
        lambda batch: {"shouted": [text.upper() for text in batch["text"]]}
    )
    extractor = letters("shouted", inputs="shouted").fit(dataset)
    assert list(extractor.transform(dataset).inputs) == [text.upper() for text in TEXTS]


@pytest.mark.parametrize("column", ["size", ("size", "price")])
def test_columns_of_numbers_are_read_from_files_and_data_sets(tmp_path, column):
    def as_numbers(rows):
        return np.asarray(rows, float)

    frame = pd.DataFrame({"text": TEXTS, "size": np.arange(60), "price": rng.normal(size=60)})
    frame.to_parquet(tmp_path / "rows.parquet")
    models = {
        "text": CallableBackbone(count_letters, fingerprint="letters"),
        column: CallableBackbone(as_numbers, fingerprint="numbers"),
    }
    inputs = list(column) if isinstance(column, tuple) else column
    for of_student in ("text", inputs):
        extractor = FoundationFeatureExtractor(models, inputs=of_student)
        expected = extractor.fit_transform(frame)
        for X in (datasets.Dataset.from_pandas(frame), tmp_path / "rows.parquet"):
            rows = extractor.fit_transform(X)
            np.testing.assert_array_equal(rows.features, expected.features)
            np.testing.assert_array_equal(np.asarray(rows.inputs), np.asarray(expected.inputs))
            np.testing.assert_array_equal(rows[7:9].features, expected.features[7:9])


def test_students_of_frames_predict_tables():
    frame = pd.DataFrame(
        {"size": rng.normal(size=60), "word": pd.Categorical(rng.choice(WORDS, 60))}
    )
    for columns in (["word"], ["size", "word"]):
        student = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(frame[columns], LABELS)
        table = pa.Table.from_pandas(frame[columns])
        np.testing.assert_array_equal(student.predict(table), student.predict(frame[columns]))
    words = pa.table({"word": WORDS[:5].tolist()})
    student = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(frame[["word"]], LABELS)
    assert student.predict(words).shape == (5,)


def test_embeddings_in_a_data_set_are_read_as_a_table():
    lists = rng.normal(size=(60, 3)).tolist()
    dataset = datasets.Dataset.from_dict({"embedding": lists})
    model = CallableBackbone(np.asarray, fingerprint="same")
    rows = FoundationFeatureExtractor(model).fit_transform(dataset)
    np.testing.assert_allclose(rows.features, lists, rtol=1e-6)


@pytest.mark.parametrize("column", [None, "text"])
def test_columns_of_a_csv_file_that_a_text_model_reads_are_texts(
    tmp_path, encoder_directory, column
):
    (tmp_path / "0.csv").write_text("text\n007\n12\n")
    (tmp_path / "1.csv").write_text("text\n3.50\nabc\n")
    texts = ["007", "12", "3.50", "abc"]
    model = f"hf:{encoder_directory('bert')}"
    model = model if column is None else {column: model}
    extractor = FoundationFeatureExtractor(model, inputs=column, cache=tmp_path / "store")
    extractor.precompute(tmp_path / "*.csv")
    rows = extractor.fit_transform(tmp_path / "*.csv")
    assert list(rows.inputs) == texts
    assert np.isfinite(rows.features).all()
    assert n_stored(tmp_path) == 4
    assert list(extractor.transform(tmp_path / "0.csv").inputs) == texts[:2]


def test_columns_of_numbers_stay_numbers_beside_texts(tmp_path):
    (tmp_path / "0.csv").write_text("text,size\nab,1\ncd,2\n")
    models = {
        "text": CallableBackbone(count_letters, fingerprint="letters"),
        "size": CallableBackbone(np.asarray, fingerprint="same"),
    }
    extractor = FoundationFeatureExtractor(models, inputs="text", cache=tmp_path / "store")
    extractor.fit(tmp_path / "0.csv")
    features = extractor.transform(tmp_path / "0.csv").features
    np.testing.assert_array_equal(features[:, -1], [1, 2])


def test_numbers_in_a_csv_file_are_texts_if_the_rows_of_fit_were(letters, tmp_path):
    (tmp_path / "0.csv").write_text("text\n007\n12\n")
    assert list(letters().fit(TEXTS).transform(tmp_path / "0.csv").inputs) == ["007", "12"]


def test_a_list_of_paths_of_tables_is_no_list_of_texts(letters, tmp_path):
    sources(tmp_path)
    paths = sorted(tmp_path.glob("*.parquet"))
    with pytest.raises(ValueError, match=r"paths of tables.*give pathlib\.Path objects"):
        letters().precompute([str(path) for path in paths])
    letters("text").precompute(paths)
    assert n_stored(tmp_path) == 60
    extractor = letters("text", inputs="text")
    np.testing.assert_array_equal(extractor.fit_transform(paths).features, count_letters(TEXTS))
    # Where rows are known to be texts, they stay texts, whoever wrote them.
    texts = letters().fit(TEXTS).transform([str(path) for path in paths])
    np.testing.assert_array_equal(texts.features, count_letters([str(path) for path in paths]))


def test_the_student_of_a_stream_reads_all_columns_or_those_that_are_named(letters, tmp_path):
    """As of a DataFrame, of which it would read the labels, too."""
    for name in ("files", "data set"):
        X, column = sources(tmp_path)[name]
        with pytest.raises(ValueError, match=r"of which the models read \['text'\].*inputs='text'"):
            letters(column).fit(X)


def test_an_empty_cell_of_a_csv_file_is_a_missing_text(letters, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na text,1\n,2\nNA,3\n")
    with pytest.raises(ValueError, match="Row 1 of X is missing"):
        letters("text", inputs="text").precompute(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("text,label\na text,1\nNA,3\n")
    rows = letters("text", inputs="text").fit_transform(tmp_path / "a.csv")
    assert list(rows.inputs) == ["a text", "NA"]


@pytest.mark.parametrize("name", ["files", "data set", "texts"])
def test_progress_counts_rows_as_they_are_computed(letters, tmp_path, name, capsys):
    X, column = sources(tmp_path)[name]
    letters(column, verbose=1).precompute(X)
    written = capsys.readouterr().err
    total = "60/60" if name != "texts" else "60row"
    assert total in written


def test_labels_and_splits_are_asked_for(letters):
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    with pytest.raises(ValueError, match="choose one of its splits, \\['train'\\]"):
        letters().fit(datasets.DatasetDict({"train": dataset}))
    student = make_pipeline(letters("text", inputs="text"), AFTClassifier())
    with pytest.raises(ValueError, match="y is a single string, 'label': give the targets"):
        student.fit(dataset, "label")
