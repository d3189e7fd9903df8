"""Frames with columns of texts, images and numbers: models of columns, students of all columns."""

import os
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.model_selection import rank_foundation_models
from sk_aft.modules import MLP, BilinearHead, MixedNet, SparseBag
from sk_aft.transfer import KernelAlignment, ProductKernelAlignment

N = 60
WORDS = np.array(["no", "some", "many"])
DIGITS, TARGETS = load_digits(return_X_y=True)
IMAGES = (DIGITS[:N].reshape(-1, 8, 8) * 15).astype(np.uint8)
LABELS = TARGETS[:N] % 3
TEXTS = [f"{WORDS[label]} cards, no {row}" for row, label in enumerate(LABELS)]
FRAME = pd.DataFrame(
    {"image": list(IMAGES), "text": TEXTS, "number": np.arange(N, dtype=float)},
    index=np.repeat(7, N),
)


def as_polars(frame):
    """The frame in polars; images as bytes of files."""
    files = [file_of(image) for image in frame["image"]] if "image" in frame else []
    others = {name: frame[name].to_list() for name in frame if name != "image"}
    return pl.DataFrame({**({"image": files} if files else {}), **others})


def file_of(image):
    path = os.path.join(os.environ["SK_AFT_CACHE"] + ".png")
    Image.fromarray(image).save(path)
    with open(path, "rb") as file:
        return file.read()


class Model:
    """A foundation model that remembers the rows it is run on."""

    def __init__(self, name, function):
        self.__name__ = name
        self.function = function
        self.rows = []

    def __call__(self, rows):
        self.rows.extend(rows)
        return np.array([self.function(row) for row in rows], dtype=float)


@pytest.fixture
def look():
    return Model("look", lambda image: [np.mean(image), np.std(image), np.ptp(image)])


@pytest.fixture
def count():
    return Model("count", lambda text: [text.count(letter) for letter in "amno"])


def refuse(rows):
    raise AssertionError("a foundation model was run at prediction")


def student(**parameters):
    return AFTClassifier(**{"max_epochs": 2, "random_state": 0, **parameters})


# ---------------------------------------------------------------- models for columns


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_each_model_reads_its_column(look, count, library):
    frame = FRAME if library == "pandas" else as_polars(FRAME)
    extractor = FoundationFeatureExtractor({"image": look, "text": [count, len_of]})
    rows = extractor.fit_transform(frame)
    assert rows.inputs is frame
    assert rows.shape == (N, 8)
    assert extractor.feature_slices_ == {
        "look": slice(0, 3),
        "count": slice(3, 7),
        "len_of": slice(7, 8),
    }
    assert extractor.column_slices_ == {"image": slice(0, 3), "text": slice(3, 8)}
    assert rows.column_slices == extractor.column_slices_
    images, texts = (model.function for model in (look, count))
    for row in (0, 11, N - 1):
        expected = [*images(IMAGES[row]), *texts(TEXTS[row]), len(TEXTS[row])]
        np.testing.assert_allclose(rows.features[row], expected, rtol=1e-6)
    assert extractor.n_features_in_ == 3
    assert extractor.feature_names_in_.tolist() == ["image", "text", "number"]
    names = extractor.get_feature_names_out().tolist()
    assert names[2:4] + names[-1:] == ["look_2", "count_0", "len_of_0"]


def len_of(texts):
    return np.array([[len(text)] for text in texts])


def test_a_column_shares_its_features_with_an_extractor_of_it_alone(look, count):
    alone = FoundationFeatureExtractor(count).fit_transform(TEXTS)
    extractor = FoundationFeatureExtractor({"image": look, "text": count})
    rows = extractor.fit_transform(FRAME)
    assert len(count.rows) == N
    np.testing.assert_array_equal(rows.features[:, 3:], alone.features)
    keys = extractor.store_keys(FRAME)
    assert keys["count"] == FoundationFeatureExtractor(count).fit(TEXTS).store_keys(TEXTS)["count"]
    FoundationFeatureExtractor(look).fit_transform(IMAGES)
    assert len(look.rows) == len(np.unique(IMAGES, axis=0))


def test_models_of_one_name_are_told_apart_by_their_columns(count):
    frame = pd.DataFrame({"a title": TEXTS, "body": TEXTS[::-1]})
    extractor = FoundationFeatureExtractor({"a title": count, "body": [count, count, len_of]})
    extractor.fit(frame)
    assert list(extractor.feature_slices_) == [
        *("a title_count", "body_count", "body_count-2", "len_of")
    ]
    assert len(set(extractor.get_feature_names_out())) == extractor.n_features_out_ == 13
    assert extractor.column_slices_["body"] == slice(4, 13)


def test_a_tuple_of_columns_is_a_table():
    frame = pd.DataFrame({"text": TEXTS, "a": np.arange(N), "b": np.arange(N) % 7})
    pca = PCA(1).fit(frame[["b", "a"]])
    rows = FoundationFeatureExtractor({("b", "a"): pca, "text": len_of}).fit_transform(frame)
    np.testing.assert_allclose(rows.features[:, :1], pca.transform(frame[["b", "a"]]), rtol=1e-5)
    with pytest.raises(ValueError, match="feature names should match"):
        FoundationFeatureExtractor({("a", "b"): pca}).fit(frame)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_student_gets_the_columns_it_is_meant_to(look, count, library):
    frame = FRAME if library == "pandas" else as_polars(FRAME)
    models = {"image": look, "text": count}
    one = FoundationFeatureExtractor(models, inputs="text").fit_transform(frame)
    assert list(one.inputs) == TEXTS
    two = FoundationFeatureExtractor(models, inputs=["number", "text"]).fit_transform(frame)
    assert list(two.inputs.columns) == ["number", "text"]
    for rows in (one, two):
        taken = rows[[5, 3]]
        assert list(taken.inputs) == [TEXTS[5], TEXTS[3]] if rows is one else len(taken.inputs) == 2
        np.testing.assert_array_equal(taken.features, rows.features[[5, 3]])
        again = FoundationFeatureExtractor(models, inputs=list(two.inputs.columns)).fit(frame)
        lazy = again.transform(frame)[[5, 3]]
        assert not lazy.is_computed
        np.testing.assert_array_equal(lazy.features, taken.features)


def test_features_of_columns_can_be_pickled_and_cloned():
    models = {"image": PCA(2).fit(DIGITS), "text": len_of}
    frame = FRAME.assign(image=list(DIGITS[:N].astype(float)[:, :64].reshape(N, 8, 8)))
    models["image"] = flattened
    extractor = FoundationFeatureExtractor(models, inputs="text")
    rows = extractor.fit_transform(frame)
    copy = pickle.loads(pickle.dumps(rows[:5]))
    assert list(copy.inputs) == TEXTS[:5]
    np.testing.assert_array_equal(copy.features, rows.features[:5])
    fitted = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(fitted.transform(frame).features, rows.features)
    assert clone(extractor).model is models
    assert clone(extractor).inputs == "text"


def flattened(images):
    return np.array([np.ravel(image)[:10] for image in images])


def test_frames_of_features_keep_the_index(look, count):
    extractor = FoundationFeatureExtractor({"image": look, "text": count})
    features = extractor.set_output(transform="pandas").fit_transform(FRAME)
    assert features.index.equals(FRAME.index)
    assert features.columns.tolist() == extractor.get_feature_names_out().tolist()


def test_rows_that_one_model_cannot_read_are_masked(look, count):
    files = [file_of(image) for image in IMAGES]
    files[4] = b"broken"
    frame = FRAME.assign(image=files)
    models = {"image": look, "text": count}
    with pytest.raises(ValueError, match=r"Row 4 .* is not a readable image"):
        FoundationFeatureExtractor(models).fit_transform(frame)
    extractor = FoundationFeatureExtractor(models, on_error="mask", inputs="text")
    with pytest.warns(UserWarning, match="1 of 60 rows have no features of model 'look'"):
        rows = extractor.fit_transform(frame)
    assert np.flatnonzero(rows.missing_mask).tolist() == [4]
    assert student().fit(rows, LABELS).score(TEXTS, LABELS) > 0


def test_precompute_fills_the_store(look, count):
    models = {"image": look, "text": count}
    FoundationFeatureExtractor(models).precompute(FRAME)
    n_rows = len(look.rows), len(count.rows)
    FoundationFeatureExtractor(models).fit_transform(FRAME)
    assert (len(look.rows), len(count.rows)) == n_rows


def test_columns_that_are_missing_are_named(look, count):
    extractor = FoundationFeatureExtractor({"image": look, "text": count}, inputs="text")
    message = r"column 'image' is missing from X, which has \['text', 'number'\]"
    with pytest.raises(ValueError, match=message):
        extractor.fit(FRAME[["text", "number"]])
    lazy = extractor.fit(FRAME).transform(FRAME[["text", "number"]])
    with pytest.raises(ValueError, match=message):
        lazy.features  # noqa: B018
    with pytest.raises(ValueError, match="column 'text' is missing from X"):
        extractor.transform(FRAME[["image"]])
    with pytest.raises(
        ValueError, match=r"DataFrame with the columns \['image', 'text'\], got a l"
    ):
        extractor.transform(TEXTS)
    with pytest.raises(ValueError, match="column 'words' is missing from X"):
        FoundationFeatureExtractor({"text": count}, inputs="words").fit(FRAME)


def test_what_is_wrong_with_a_column_is_said_with_its_name(look, count):
    frame = FRAME.assign(text=[None, *TEXTS[1:]])
    with pytest.raises(ValueError, match=r"column 'text': Row 0 of X is missing"):
        FoundationFeatureExtractor({"image": look, "text": count}).fit(frame)
    with pytest.raises(ValueError, match=r"inputs='text' .* model has to be a mapping"):
        FoundationFeatureExtractor(count, inputs="text").fit(FRAME)
    with pytest.raises(ValueError, match="empty dict"):
        FoundationFeatureExtractor({}).fit(FRAME)
    with pytest.raises(ValueError, match=r"not all numbers.*model=\{'text': 'minilm'\}"):
        FoundationFeatureExtractor(count).fit(FRAME)


def test_mappings_are_candidates_of_a_ranking(look, count):
    ranking = rank_foundation_models(
        [{"image": look, "text": count}, {"text": count}], FRAME, LABELS
    )
    assert set(ranking["model"]) == {"look+count", "count"}


# ---------------------------------------------------------------- teachers of other columns


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_student_of_texts_learns_from_images_and_predicts_without_them(look, count, library):
    frame = FRAME if library == "pandas" else as_polars(FRAME)
    models = {"image": look, "text": count}
    pipe = make_pipeline(FoundationFeatureExtractor(models, inputs="text"), student(max_epochs=15))
    pipe.fit(frame, LABELS)
    assert pipe[-1].history_[-1]["train_transfer_loss"] > 0
    look.function = count.function = refuse
    small = pickle.loads(pickle.dumps(pipe[-1]))
    assert small.score(TEXTS, LABELS) > 0.9
    np.testing.assert_array_equal(pipe.predict(frame[["text"]]), small.predict(TEXTS))
    np.testing.assert_array_equal(pipe.predict(frame), small.predict(TEXTS))


def test_each_model_sees_each_row_once_in_a_search(look, count):
    models = {"image": look, "text": count}
    pipe = make_pipeline(FoundationFeatureExtractor(models), student())
    grid = {
        "foundationfeatureextractor__inputs": ["text", None],
        "aftclassifier__beta": [0, 1],
    }
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(FRAME, LABELS)
    assert search.predict(FRAME).shape == (N,)
    assert len(look.rows) == len(np.unique(IMAGES, axis=0))
    assert len(count.rows) == N
    probe = make_pipeline(
        FoundationFeatureExtractor(models), StandardScaler(), LogisticRegression()
    )
    assert cross_val_score(probe, FRAME, LABELS, cv=2, error_score="raise").mean() > 0.5
    assert len(look.rows) == len(np.unique(IMAGES, axis=0))


# ---------------------------------------------------------------- students of several columns


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (["image", "text"], BilinearHead),
        (["text", "number"], BilinearHead),
        (["image", "text", "number"], MLP),
    ],
)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_student_reads_all_columns(columns, head, library):
    frame = FRAME[columns] if library == "pandas" else as_polars(FRAME[columns])
    model = student(beta=0, max_epochs=10, lr=0.005).fit(frame, LABELS)
    assert isinstance(model.module_, MixedNet)
    assert isinstance(model.module_.head, head)
    assert model.score(frame, LABELS) > 0.9
    assert model.feature_names_in_.tolist() == columns
    assert model.n_features_in_ == len(columns)
    again = pickle.loads(pickle.dumps(model))
    other_order = frame[columns[::-1]]
    np.testing.assert_array_equal(again.predict_proba(other_order), model.predict_proba(frame))
    one = frame[3:4]
    np.testing.assert_allclose(
        model.predict_proba(one), model.predict_proba(frame)[3:4], rtol=1e-3, atol=1e-5
    )


def test_rows_that_lack_columns_are_refused_and_others_are_ignored():
    model = student(beta=0).fit(FRAME[["text", "number"]], LABELS)
    assert model.predict(FRAME).shape == (N,)
    with pytest.raises(
        ValueError, match=r"column 'number' is missing from X, which has \['text'\]"
    ):
        model.predict(FRAME[["text"]])
    with pytest.raises(ValueError, match=r"columns \['text', 'number'\], got a list"):
        model.predict(TEXTS)
    with pytest.raises(ValueError, match="0 sample"):
        model.predict(FRAME[:0])
    with pytest.raises(ValueError, match=r"column 'number': Expected numeric rows, got text"):
        model.predict(FRAME.assign(number=TEXTS))


def test_columns_may_have_any_names():
    frame = FRAME.rename(columns={"image": "the image.png!", "text": "numbers", "number": "type"})
    model = student(beta=0).fit(frame, LABELS)
    assert model.module_.names == ["the image.png!", "numbers", "numbers_"]
    assert model.predict(frame).shape == (N,)
    numbered = frame.set_axis([0, 1, 2], axis=1)
    model.fit(numbered, LABELS)
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(numbered[[2, 0, 1]]).shape == (N,)


def test_numbers_that_are_missing_are_an_error_unless_filled():
    frame = FRAME.assign(number=[np.nan, *range(1, N)])
    with pytest.raises(
        ValueError, match=r"NaN in row 0, column 'number': fill it, .*SimpleImputer"
    ):
        student(beta=0).fit(frame, LABELS)
    filled = FunctionTransformer(np.nan_to_num)
    model = student(beta=0, preprocessor__numeric=filled).fit(frame, LABELS)
    assert model.predict(frame).shape == (N,)
    with pytest.raises(ValueError, match="preprocessor=None, but columns of several kinds"):
        student(beta=0, preprocessor=None).fit(frame, LABELS)


def test_early_stopping_warm_start_weights_and_pieces():
    model = student(beta=0, early_stopping=True, warm_start=True, validation_fraction=0.2)
    weights = np.arange(N)
    for _ in range(2):
        model.fit(FRAME, LABELS, sample_weight=weights)
    assert len(model.validation_scores_) == 4
    model = student(beta=0).partial_fit(FRAME[:40], LABELS[:40], classes=[0, 1, 2])
    model.partial_fit(FRAME[40:], LABELS[40:])
    assert model.predict(FRAME).shape == (N,)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_without_labels_take_part(look, count, library):
    frame = FRAME if library == "pandas" else as_polars(FRAME)
    extractor = FoundationFeatureExtractor({"image": look, "text": count})
    rows = extractor.fit_transform(frame)
    model = student().fit(rows[:30], LABELS[:30], X_unlabeled=rows[30:])
    assert model.history_[-1]["train_batch_count"] >= 1
    assert model.predict(frame).shape == (N,)


def test_numbers_are_predicted_from_all_columns(look, count):
    models = {"image": look, "text": count}
    model = AFTRegressor(beta=1, lr=0.01, max_epochs=20, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(models), model).fit(FRAME, LABELS * 2.0)
    look.function = count.function = refuse
    assert pipe.score(FRAME, LABELS * 2.0) > 0.5
    assert clone(pipe)[-1].get_params() == model.get_params()


# ---------------------------------------------------------------- own parts


def test_an_own_preprocessor_gets_the_frame_as_it_is():
    frame = FRAME.assign(city=pd.Categorical(["Rome", "Oslo"] * (N // 2)), empty=None)
    seen = []

    def keep(X):
        seen.append(X)
        return X

    prepared = make_pipeline(
        FunctionTransformer(keep),
        make_column_transformer((TfidfVectorizer(), "text"), (OneHotEncoder(), ["city"])),
    )
    model = student(beta=0, preprocessor=prepared, max_epochs=20).fit(frame, LABELS)
    pd.testing.assert_frame_equal(seen[0], frame)
    assert isinstance(model.module_, SparseBag)
    assert model.score(frame, LABELS) > 0.9
    dense = make_column_transformer((StandardScaler(), ["number"]), (OneHotEncoder(), ["city"]))
    dense.set_params(sparse_threshold=0)
    model = student(beta=0, preprocessor=dense).fit(frame, LABELS)
    assert isinstance(model.module_, MLP)
    assert next(model.module_.parameters()).shape[1] == 3
    assert model.predict(frame).shape == (N,)


class Own(nn.Module):
    def __init__(self, parts, n_outputs):
        super().__init__()
        self.embedding = nn.Embedding(parts["text"]["n_tokens"], 6)
        self.numbers = nn.Linear(parts["numbers"]["n_inputs"], 4)
        self.head = BilinearHead(6, 4, n_outputs)

    def forward(self, text, numbers):
        tokens, lengths = text["tokens"], text["lengths"]
        is_token = torch.arange(tokens.shape[1]) < lengths[:, None]
        pair = (self.embedding(tokens) * is_token[..., None]).sum(1), self.numbers(numbers)
        return self.head(*pair), pair


class Asking(nn.Module):
    """A transfer method that notes the widths of what it gets."""

    def __init__(self, accepts_pairs):
        super().__init__()
        self.accepts_pairs = accepts_pairs
        self.seen = []

    def forward(self, student, foundation):
        self.seen.append(
            [tuple(part.shape) for part in student]
            if isinstance(student, tuple)
            else tuple(student.shape)
        )
        total = sum(part.sum() for part in student) if self.accepts_pairs else student.sum()
        assert not torch.isnan(foundation).any()
        return 0 * total


def test_own_networks_get_the_parts_by_name_and_pairs_reach_methods_that_take_them(count):
    extractor = FoundationFeatureExtractor({"text": count, ("number",): np.copy})
    rows = extractor.fit_transform(FRAME[["text", "number"]])
    for accepts_pairs, expected in ((True, [(N, 6), (N, 4)]), (False, (N, 10))):
        model = student(module=Own, transfer=Asking(accepts_pairs)).fit(rows, LABELS)
        assert model.transfer_.seen[0] == expected


def test_rows_without_features_leave_each_part(look, count):
    files = [file_of(image) for image in IMAGES]
    files[4] = b"broken"
    models = {"image": look, "text": count}
    extractor = FoundationFeatureExtractor(models, on_error="mask", inputs=["text", "number"])
    with pytest.warns(UserWarning, match="1 of 60 rows"):
        rows = extractor.fit_transform(FRAME.assign(image=files))
    model = student(transfer=Asking(accepts_pairs=True)).fit(rows, LABELS)
    assert model.transfer_.seen[0] == [(N - 1, 128), (N - 1, 128)]


@pytest.mark.parametrize("transfer", ["aft", "aft-product", "kd", "rkd", "b-tuning"])
def test_methods_take_students_of_two_columns(look, count, transfer):
    columns = ["image", "text"]
    extractor = FoundationFeatureExtractor(dict(zip(columns, (look, count), strict=True)))
    rows = extractor.fit_transform(FRAME[columns])
    model = student(transfer=transfer).fit(rows, LABELS)
    assert model.history_[-1]["train_transfer_loss"] > 0
    assert model.predict(FRAME).shape == (N,)


def test_the_product_kernel_groups_features_by_column(look, count):
    extractor = FoundationFeatureExtractor({"image": look, "text": [count, len_of]})
    rows = extractor.fit_transform(FRAME[["image", "text"]])
    named = student(transfer="aft-product").fit(rows, LABELS)
    assert isinstance(named.transfer_, ProductKernelAlignment)
    assert [len(columns) for columns in named.transfer_.columns] == [3, 5]
    built = ProductKernelAlignment(8, extractor.column_slices_)
    given = student(transfer=built).fit(rows, LABELS)
    np.testing.assert_array_equal(given.loss_curve_, named.loss_curve_)
    both = [("aft-product", 10), ("aft", 1)]
    several = student(transfer=both).fit(rows, LABELS)
    assert isinstance(several.transfer_.methods[1], KernelAlignment)
    with pytest.raises(ValueError, match="'aft-product' needs foundation models of several"):
        student(transfer="aft-product").fit(TEXTS, LABELS, features=DIGITS[:N])


def test_columns_of_texts_alone_are_not_multiplied():
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "zip": rng.integers(10000, 99999, 200).astype(str),
                "year": rng.choice(["1999", "2005", "2010"], 200),
            }
        )
        for _ in range(2)
    ]
    labels = [(frame["year"] == "1999").to_numpy() for frame in frames]
    student = AFTClassifier(beta=0, random_state=0).fit(frames[0], labels[0])
    assert student.score(frames[1], labels[1]) == 1


# ---------------------------------------------------------------- what columns were recognised as


@pytest.mark.parametrize("inputs", [["number", "image"], ["image", "number"], ["image", "text"]])
def test_some_columns_in_another_order_are_what_they_were(look, inputs):
    frame = FRAME.assign(image=list(IMAGES / np.float32(255)), more=1.0)
    extractor = FoundationFeatureExtractor({"image": look}, cache=None, inputs=inputs)
    model = student(beta=0).fit(extractor.fit_transform(frame), LABELS)
    alone = student(beta=0).fit(frame[inputs], LABELS)
    np.testing.assert_array_equal(model.predict_proba(frame), alone.predict_proba(frame))
    turned = FoundationFeatureExtractor({"image": look}, cache=None, inputs=inputs[::-1]).fit(frame)
    dark = frame.assign(image=[np.ones((8, 8), np.uint8)] * N)  # as floats white
    for other in (extractor.transform(dark), turned.transform(dark)):
        np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(dark))


NAMES_OF_FILES = [f"{WORDS[label]} {row}.png" for row, label in enumerate(LABELS)]


@pytest.mark.parametrize("inputs", [None, ["number", "text"], ["text", "number"]])
@pytest.mark.parametrize("is_pickled", [False, True])
def test_texts_that_end_like_files_stay_texts(inputs, is_pickled):
    frame = FRAME[["text", "number"]].assign(text=NAMES_OF_FILES)
    extractor = FoundationFeatureExtractor({"text": "minilm"}, cache=None, inputs=inputs)
    rows = extractor.fit_transform(frame)
    rows = pickle.loads(pickle.dumps(rows)) if is_pickled else rows
    model = student(beta=0, max_epochs=15, lr=0.005).fit(rows, LABELS)
    assert model.score(frame[:7], LABELS[:7]) == 1
    assert model.score(extractor.transform(frame)[::-1], LABELS[::-1]) > 0.9


def test_a_pickle_of_some_rows_remembers_the_range_of_all():
    images = list(IMAGES.astype(float))
    images[3] = np.ones((8, 8))  # white if it were alone
    extractor = FoundationFeatureExtractor({"image": flattened}, cache=None)
    some = extractor.fit_transform(FRAME.assign(image=images))[[3]]
    for rows in (some, pickle.loads(pickle.dumps(some))):
        assert rows._rows.column("image").image(0).max() == 1
