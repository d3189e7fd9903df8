"""What the diagram of a student says."""

import html
import inspect
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)
from sk_aft._student._html import RowCounts, two_lines
from tests._fine_tuning.linear_layers import LinearLayers

X, Y = load_iris(return_X_y=True)
SMALL = {"max_epochs": 2, "module__hidden_sizes": (8,), "random_state": 0}


def shown(estimator):
    """Return a diagram without its style and its scripts."""
    return re.sub(
        "<(style|script).*?</(style|script)>", "", estimator._repr_html_(), flags=re.DOTALL
    )


def lines_of(estimator):
    """Return the lines below the names in a diagram."""
    (caption,) = re.findall('<div class="caption">(.*?)</div>', shown(estimator), re.DOTALL)
    return html.unescape(caption).split("\n")


def pipe(model=None, **parameters):
    model = PCA(2).fit(X) if model is None else model
    return make_pipeline(
        FoundationFeatureExtractor(model, cache=None), AFTClassifier(**{**SMALL, **parameters})
    )


def test_two_lines_say_what_a_student_is_and_what_it_learned_from():
    y = np.where(np.arange(150) % 3, Y, -1)
    student = pipe(missing_label=-1).fit(X, y)[-1]
    n_weights = sum(weights.numel() for weights in student.module_.parameters())
    weights = student.teacher_weights_
    first, second = sorted(weights, key=weights.get, reverse=True)
    assert {first, second} == {"pca", "student's rows"}
    assert lines_of(student) == [
        f"MLP, {n_weights} weights, trained on 100 labelled and 50 unlabelled rows.",
        "Learned from the labels and, by pooled-kd (beta 1), "
        f"from {first} {weights[first]:.2f} and {second} {weights[second]:.2f}.",
    ]


def test_an_unfitted_student_has_no_lines_and_a_pipeline_has_those_of_its_student():
    unfitted = pipe()
    assert "caption" not in shown(unfitted) + shown(unfitted[-1])
    fitted = unfitted.fit(X, Y)
    assert lines_of(fitted) == lines_of(fitted[-1])
    assert "FoundationFeatureExtractor" in shown(fitted)
    assert "AFTClassifier" in shown(fitted)


def test_a_search_shows_the_lines_of_the_student_that_it_found():
    search = GridSearchCV(pipe(), {"aftclassifier__beta": [1]}, cv=2).fit(X, Y)
    assert lines_of(search) == lines_of(search.best_estimator_[-1])


def test_the_text_of_a_student_is_that_of_its_parameters():
    student = pipe()[-1]
    before = repr(student)
    assert before == "AFTClassifier(max_epochs=2, module__hidden_sizes=(8,), random_state=0)"
    fitted = student.fit(X, Y, features=PCA(2).fit_transform(X))
    assert repr(fitted) == before
    assert fitted._repr_mimebundle_()["text/plain"] == before


def test_parameters_are_shown_as_the_user_set_them():
    diagram = html.unescape(shown(pipe(lr=0.0123)[-1].fit(X, Y, features=X)))
    assert "0.0123" in diagram
    assert "module__hidden_sizes" in diagram
    for internal in ("skorch", "iterator", "callbacks__", "predict_nonlinearity", "train_split"):
        assert internal not in diagram


def test_fitted_attributes_are_documented_and_none_is_skorchs():
    student = pipe(early_stopping=True).fit(X, Y)[-1]
    names = re.findall(r">\s*(\w+_)\s*<", shown(student))
    documented = inspect.getdoc(AFTClassifier).split("\nAttributes\n")[1]
    assert not [name for name in names if not re.search(rf"\b{name}\b", documented)]
    internals = {"callbacks_", "history_", "prefixes_", "initialized_", "init_context_"}
    assert not internals & set(names)
    if names:  # scikit-learn 1.9 or later
        assert {"classes_", "teacher_weights_", "module_"} <= set(names)


def test_labels_alone_are_said_to_be_alone():
    student = AFTClassifier(beta=0, **SMALL).fit(X, Y)
    assert lines_of(student)[1] == "Learned from the labels alone."
    with pytest.warns(UserWarning, match="No foundation features"):
        student = AFTClassifier(**SMALL).fit(X, Y)
    assert lines_of(student)[1] == "Learned from the labels alone, without foundation features."


@pytest.mark.parametrize(
    ("transfer", "method"),
    [
        ("aft", "aft (beta 10)"),
        ([("kd", 1), ("aft", 3)], "kd + aft (beta 1)"),
    ],
)
def test_methods_without_weights_of_teachers_name_the_teachers(transfer, method):
    models = [PCA(2).fit(X), KMeans(3, n_init=1).fit(X)]
    student = pipe(models, transfer=transfer).fit(X, Y)[-1]
    expected = f"Learned from the labels and, by {method}, from pca and kmeans."
    assert lines_of(student)[1] == expected


def test_features_and_soft_targets_of_arrays_are_said_to_be_arrays():
    student = AFTClassifier(transfer="aft", **SMALL).fit(X, Y, features=PCA(2).fit_transform(X))
    assert lines_of(student)[1].endswith("by aft (beta 10), from features given as an array.")
    student = AFTClassifier(**SMALL).fit(X, Y, soft_targets=np.eye(3)[Y])
    assert lines_of(student)[1].endswith(
        "by probe-kd (beta 1), from soft targets given as an array."
    )


def test_predictors_and_fine_tuned_teachers_have_names():
    predictions = TeacherPredictions(GaussianNB())
    student = pipe(predictions, transfer="probe-kd").fit(X, Y)[-1]
    assert "from predictions of GaussianNB." in lines_of(student)[1]
    tuned = FineTunedFeatureExtractor(LinearLayers(), objective="linear", n_steps=1, cache=None)
    rows = tuned.fit_transform([[float(row)] for row in range(12)], [0, 1] * 6)
    student = AFTClassifier(transfer="aft", **SMALL).fit(rows, [0, 1] * 6)
    assert ", fine-tuned." in lines_of(student)[1]


def test_teachers_that_explain_nothing_are_said_to_be_of_no_use():
    y = np.random.default_rng(0).integers(2, size=150)
    noise = np.random.default_rng(100).normal(size=(150, 3))
    student = AFTClassifier(**SMALL).fit(X, y, features=noise)
    assert student.teacher_score_ == 0
    expected = "Learned from the labels alone: pooled-kd (beta 1) found no use in features."
    assert lines_of(student)[1] == expected


def test_a_regressor_says_the_same():
    inputs, y = load_diabetes(return_X_y=True)
    student = AFTRegressor(max_epochs=1, random_state=0)
    student.fit(inputs, y, features=PCA(2).fit_transform(inputs))
    first, second = lines_of(student)
    assert re.fullmatch(r"MLP, [\d,]+ weights, trained on 442 labelled rows\.", first)
    assert second.startswith("Learned from the labels and, by pooled-kd (beta 1), from ")


def test_held_out_rows_were_not_trained_on():
    student = AFTClassifier(beta=0, early_stopping=True, **SMALL).fit(X, Y)
    assert lines_of(student)[0].endswith("trained on 135 labelled rows.")


def test_training_that_resumes_is_the_last_one():
    student = AFTClassifier(beta=0, **SMALL)
    student.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X[:1], Y[:1])
    assert lines_of(student)[0].endswith("last trained on 1 labelled row.")
    rows = FoundationFeatureExtractor(PCA(2).fit(X), cache=None).fit_transform(X)
    student = AFTClassifier(transfer="aft", warm_start=True, **SMALL).fit(rows, Y)
    student.set_params(beta=0).fit(rows, Y)
    first, second = lines_of(student)
    assert first.endswith("last trained on 150 labelled rows.")
    assert second == "Learned from the labels and, before the last training, from pca."


def test_a_pickle_knows_its_teachers_but_not_its_rows():
    student = pipe().fit(X, Y)[-1]
    first, second = lines_of(pickle.loads(pickle.dumps(student)))
    assert re.fullmatch(r"MLP, \d+ weights\.", first)
    assert second == lines_of(student)[1]


def test_a_student_from_a_folder_knows_its_teachers_but_not_their_weights(tmp_path):
    pipe().fit(X, Y)[-1].save_pretrained(tmp_path / "student")
    first, second = lines_of(AFTClassifier.from_pretrained(tmp_path / "student"))
    assert re.fullmatch(r"MLP, \d+ weights\.", first)
    assert second == "Learned from the labels and, by pooled-kd (beta 1), from pca."


def test_texts_start_from_a_model(encoder_directory):
    texts = ["my card was lost", "the rate changed"] * 10
    student = AFTClassifier(encoder_directory("bert"), beta=0, max_epochs=1, random_state=0)
    first, second = lines_of(student.fit(texts, [0, 1] * 10))
    assert first.startswith("TransformerText, ")
    assert re.fullmatch(r"Started from bert\d*, and learned from the labels alone\.", second)


def test_names_of_columns_are_escaped():
    frame = pd.DataFrame({"<b>bold</b>\n&": X[:, 0], "other": X[:, 1]})

    def read(rows):
        return np.asarray(rows, dtype=float).reshape(-1, 1)

    extractor = FoundationFeatureExtractor({"<b>bold</b>\n&": read}, cache=None)
    student = AFTClassifier(transfer="aft", max_epochs=1).fit(extractor.fit_transform(frame), Y)
    lines = lines_of(student)
    assert len(lines) == 2
    assert "of column <b>bold</b> &." in lines[1]
    assert "<b>bold" not in shown(student)


def test_a_preprocessor_that_is_an_estimator_does_not_hide_the_lines():
    student = AFTClassifier(beta=0, preprocessor=StandardScaler(), **SMALL).fit(X, Y)
    assert lines_of(student)[1] == "Learned from the labels alone."
    assert "StandardScaler" in shown(student)


def test_large_counts_are_short_and_long_lists_are_cut():
    student = AFTClassifier(beta=1, transfer="aft", **SMALL).fit(X, Y, features=X)._fitted
    student.teachers = [{**student.teachers[0], "name": f"model{i}"} for i in range(9)]
    _, second = two_lines(student, None)
    assert second.endswith("from model0, model1, model2, model3, model4 and 4 more.")
    first, _ = two_lines(student, RowCounts(1_234, 3_000, True))
    assert first.endswith("weights, trained on 1,234 labelled and 3,000 unlabelled rows.")
    big = AFTClassifier(beta=0, max_epochs=1, module__hidden_sizes=(1450, 1450)).fit(X, Y)
    assert lines_of(big)[0].startswith("MLP, 2.1 million weights")


def test_no_diagram_is_made_if_texts_are_displayed():
    student = AFTClassifier(beta=0, **SMALL).fit(X, Y)
    with sklearn.config_context(display="text"):
        assert not hasattr(student, "_repr_html_")
        assert student._repr_mimebundle_() == {"text/plain": repr(student)}
