"""Students saved as folders and loaded again."""

import json
import os
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.modules import MLP
from sk_aft.serving import load
from tests._deployment.students import (
    IRIS,
    LABELS,
    NAMES,
    NAMES_OF_STUDENTS,
    OTHER_TEXTS,
    TEXTS,
    TwoLayers,
    outputs,
    small,
    student,
    weights,
)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", NAMES_OF_STUDENTS)
def test_a_loaded_student_predicts_and_trains_as_before(name, tmp_path):
    fitted, rows = student(name)
    fitted.save_pretrained(tmp_path / "student")
    trust = [TwoLayers] if name == "own network" else []
    loaded = type(fitted).from_pretrained(tmp_path / "student", trust=trust)
    np.testing.assert_array_equal(outputs(loaded, rows), outputs(fitted, rows))
    if hasattr(fitted, "classes_"):
        np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
        assert loaded.classes_.dtype == fitted.classes_.dtype
    for attribute in ("n_features_in_", "feature_names_in_"):
        np.testing.assert_array_equal(
            getattr(loaded, attribute, None), getattr(fitted, attribute, None)
        )
    assert not loaded.module_.training
    before = weights(loaded).clone()
    loaded.set_params(max_epochs=1)
    loaded.partial_fit(rows, fitted.predict(rows))
    assert not np.array_equal(weights(loaded), before)


def test_parameters_are_restored(tmp_path):
    fitted = small(
        class_weight={"a": 1.0, "b": 2.5},
        missing_label="?",
        optimizer__weight_decay=0.1,
        criterion=nn.CrossEntropyLoss,
        criterion__label_smoothing=0.1,
        lr=np.float64(0.01),
    )
    fitted.fit(IRIS[:100], np.array(["a", "b"])[(IRIS[:100, 2] > 3).astype(int)])
    fitted.save_pretrained(tmp_path)
    loaded = AFTClassifier.from_pretrained(tmp_path)
    assert loaded.get_params() == fitted.get_params()


def test_what_a_folder_does_not_hold_is_said_when_it_is_loaded(tmp_path):
    fitted = small(random_state=np.random.RandomState(0)).fit(IRIS, NAMES)
    fitted.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"does not hold the parameters \['random_state'\]"):
        loaded = AFTClassifier.from_pretrained(tmp_path)
    assert loaded.random_state is None


@pytest.mark.parametrize(
    ("dtype", "share", "difference"), [("float16", 0.55, 1e-3), ("int8", 0.35, 0.02)]
)
@pytest.mark.parametrize("name", ["texts", "transformer"])
def test_smaller_number_formats(name, dtype, share, difference, tmp_path):
    fitted, rows = student(name)
    fitted.save_pretrained(tmp_path / "float32")
    fitted.save_pretrained(tmp_path / dtype, dtype=dtype)
    sizes = [os.path.getsize(tmp_path / name / "model.safetensors") for name in ("float32", dtype)]
    assert sizes[1] < share * sizes[0]
    loaded = AFTClassifier.from_pretrained(tmp_path / dtype)
    found = np.abs(outputs(loaded, rows) - outputs(fitted, rows)).max()
    assert 0 < found < difference


def test_no_training_row_enters_the_folder(tmp_path):
    secret = "zyxwvut qponmlk"
    fitted = small(module__start="random").fit([*TEXTS, secret], [*LABELS, "card"])
    fitted.save_pretrained(tmp_path / "texts", X_test=[secret, "card"], y_test=["card", "card"])
    numbers = np.vstack([IRIS, [[1234.5678, 2, 3, 4]]])
    small().fit(numbers, [*NAMES, "setosa"]).save_pretrained(tmp_path / "numbers", onnx=True)
    held = b"".join(files_of(tmp_path).values())
    assert b"zyxwvut" not in held
    assert b"1234.5678" not in held
    assert np.float32(1234.5678).tobytes() not in held
    assert np.float64(1234.5678).tobytes() not in held


def test_the_configuration_tells_what_was_transferred(tmp_path):
    features = np.random.default_rng(0).normal(size=(150, 5))
    fitted = small(beta=2.0, transfer="aft").fit(IRIS, NAMES, features=features)
    fitted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["transfer"] == {"method": "aft", "beta": 2.0, "n_foundation_features": 5}
    assert [teacher["type"] for teacher in config["teachers"]] == ["array"]
    assert config["class"] == "AFTClassifier"
    assert config["format_version"] == 1
    loaded = AFTClassifier.from_pretrained(tmp_path)
    assert (loaded.transfer_method_, loaded.beta_) == ("aft", 2.0)


def test_the_model_card_has_the_score_of_what_is_saved(tmp_path):
    fitted, _ = student("numbers")
    fitted.save_pretrained(tmp_path, X_test=IRIS, y_test=NAMES)
    card = (tmp_path / "README.md").read_text()
    score = fitted.score(IRIS, NAMES)
    assert f"accuracy: **{score:.4g}** on 150 test rows" in card
    assert "A prediction of a single row takes" in card


def test_test_rows_without_a_label_do_not_count(tmp_path):
    fitted, _ = student("numbers")
    fitted = clone(fitted).set_params(missing_label="?").fit(IRIS, NAMES)
    marked = np.where(np.arange(150) < 100, NAMES, "?")
    fitted.save_pretrained(tmp_path, X_test=IRIS, y_test=marked)
    assert "on 100 test rows" in (tmp_path / "README.md").read_text()


def test_a_regressors_card_has_its_r2(tmp_path):
    fitted, _ = student("regressor")
    fitted.save_pretrained(tmp_path, X_test=IRIS, y_test=1e5 * IRIS[:, 2])
    assert "r2: **" in (tmp_path / "README.md").read_text()


class OwnScaler(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X / 10


class WithActivation(TwoLayers):
    def __init__(self, n_inputs, n_outputs, activation):
        super().__init__(n_inputs, n_outputs)
        self.body[1] = activation


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        (lambda: small(module=TwoLayers(4, 3)).fit(IRIS, NAMES), "an instance of TwoLayers"),
        (lambda: small(module=lambda: TwoLayers(4, 3)).fit(IRIS, NAMES), "module is a lambda"),
        (
            lambda: small(module=WithActivation, module__activation=nn.Tanh()).fit(IRIS, NAMES),
            "arguments of WithActivation are not numbers, strings",
        ),
        (lambda: small(preprocessor=OwnScaler()).fit(IRIS, NAMES), "an object of type OwnScaler"),
    ],
)
def test_what_needs_code_is_refused_and_nothing_is_written(fitted, message, tmp_path):
    student("numbers")[0].save_pretrained(tmp_path / "student")
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=message):
        fitted().save_pretrained(tmp_path / "student")
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int4"}, "dtype='int4', expected one of"),
        ({"onnx": "int4"}, "onnx='int4', expected True, False"),
        ({"y_test": NAMES}, "y_test was passed without X_test"),
        ({"X_test": IRIS[:, :3]}, "3 features"),
        ({"X_test": IRIS, "y_test": NAMES[:9]}, "inconsistent numbers of samples"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        student("numbers")[0].save_pretrained(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_only_fitted_students_are_saved(tmp_path):
    with pytest.raises(NotFittedError):
        AFTClassifier().save_pretrained(tmp_path / "new")
    with pytest.raises(NotFittedError):
        AFTClassifier().export_onnx(tmp_path / "new", IRIS)


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        student("numbers")[0].save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_files_of_other_names_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    student("texts")[0].save_pretrained(tmp_path)
    student("numbers")[0].save_pretrained(tmp_path)
    loaded = AFTClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict(IRIS), student("numbers")[0].predict(IRIS))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_class_has_to_be_the_right_one(tmp_path):
    student("numbers")[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds an AFTClassifier: load it with AFTClassifier"):
        AFTRegressor.from_pretrained(tmp_path)


def test_a_subclass_loads_the_folder_of_its_base(tmp_path):
    class Own(AFTClassifier):
        pass

    student("texts")[0].save_pretrained(tmp_path)
    assert isinstance(Own.from_pretrained(tmp_path), Own)
    Own.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    loaded = AFTClassifier.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(
        loaded.predict_proba(OTHER_TEXTS), student("texts")[0].predict_proba(OTHER_TEXTS)
    )


def test_loading_leaves_the_random_state_alone(tmp_path):
    import torch

    student("resnet")[0].save_pretrained(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    AFTClassifier.from_pretrained(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_saving_is_reproducible(tmp_path):
    for name in ("one", "other"):
        student("texts")[0].save_pretrained(tmp_path / name)
    one, other = (files_of(tmp_path / name) for name in ("one", "other"))
    del one["README.md"], other["README.md"]
    assert one == other


def test_saving_is_quiet(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student("texts")[0].save_pretrained(tmp_path, onnx=True)
        AFTClassifier.from_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_graph_is_added_to_the_folder_of_the_student(dtype, tmp_path):
    fitted, rows = student("hidden layers")
    fitted.save_pretrained(tmp_path, dtype=dtype)
    for exported in (fitted, AFTClassifier.from_pretrained(tmp_path)):
        report = exported.export_onnx(tmp_path, rows, exported.predict(rows))
        assert report["accuracy"] == {"onnx": 1.0, "torch": 1.0}
        assert json.loads((tmp_path / "onnx/parity.json").read_text()) == report
        np.testing.assert_allclose(
            load(tmp_path).predict_proba(rows), exported.predict_proba(rows), atol=1e-4
        )
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="holds another student than this one"):
        student("numbers")[0].export_onnx(tmp_path, IRIS)
    assert files_of(tmp_path) == before


def test_a_graph_is_removed_when_another_student_is_saved(tmp_path):
    student("numbers")[0].save_pretrained(tmp_path, onnx=True)
    student("texts")[0].save_pretrained(tmp_path)
    assert not (tmp_path / "onnx/model.onnx").exists()
    expected = student("texts")[0].predict(OTHER_TEXTS)
    np.testing.assert_array_equal(load(tmp_path).predict(OTHER_TEXTS), expected)


def test_export_saves_the_student_first_where_it_is_not_saved(tmp_path):
    fitted, rows = student("resnet")
    fitted.export_onnx(tmp_path / "new", rows)
    np.testing.assert_allclose(
        load(tmp_path / "new").predict_proba(rows), fitted.predict_proba(rows), atol=1e-4
    )


def test_the_model_card_follows_the_folder_unless_it_was_edited(tmp_path):
    fitted, rows = student("hidden layers")
    fitted.save_pretrained(tmp_path, X_test=rows, y_test=fitted.predict(rows))
    assert "holds no ONNX graph" in (tmp_path / "README.md").read_text()
    fitted.export_onnx(tmp_path, rows)
    card = (tmp_path / "README.md").read_text()
    assert "from sk_aft.serving import load" in card
    assert "| onnx/model.onnx |" in card
    assert "accuracy: **1** on" in card
    (tmp_path / "README.md").write_text("My own words")
    fitted.export_onnx(tmp_path, rows, quantize="float16")
    assert (tmp_path / "README.md").read_text() == "My own words"


def test_files_that_are_not_a_students_are_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("My project")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds README.md, config.json, which are not of"):
        student("numbers")[0].save_pretrained(tmp_path, onnx=True)
    assert files_of(tmp_path) == before


def test_files_of_a_former_student_are_removed(tmp_path):
    student("texts")[0].save_pretrained(tmp_path, onnx=True)
    student("numbers")[0].save_pretrained(tmp_path)
    assert set(files_of(tmp_path)) == {"README.md", "config.json", "model.safetensors"}
    assert not (tmp_path / "onnx").exists()


def test_names_of_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fitted, _ = student("texts")
    fitted.save_pretrained("~/models/one")
    expected = fitted.predict(OTHER_TEXTS)
    np.testing.assert_array_equal(load("~/models/one").predict(OTHER_TEXTS), expected)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fitted.save_pretrained(".")
    assert "load('here')" in (tmp_path / "here/README.md").read_text()
    with pytest.raises(ValueError, match="empty string"):
        fitted.save_pretrained("")
    (tmp_path / "link").symlink_to(tmp_path / "here", target_is_directory=True)
    fitted.save_pretrained(tmp_path / "link", dtype="int8")
    assert AFTClassifier.from_pretrained(tmp_path / "here").predict(OTHER_TEXTS).tolist()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        fitted.save_pretrained(tmp_path / "broken")


def test_a_failing_export_leaves_the_folder_as_it_was(tmp_path):
    student("texts")[0].save_pretrained(tmp_path / "old")
    before = files_of(tmp_path)
    fails = small(module=Random).fit(IRIS, NAMES)
    for directory in ("old", "new"):
        with pytest.raises(ValueError, match="ONNX Runtime gives other"):
            fails.save_pretrained(tmp_path / directory, onnx=True)
    with pytest.raises(ValueError, match="ONNX Runtime gives other"):
        fails.export_onnx(tmp_path / "new", IRIS)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "new").exists()


class Random(TwoLayers):
    def forward(self, inputs):
        logits, features = super().forward(inputs)
        return logits + torch.rand_like(logits), features


def test_a_graph_is_in_the_number_format_of_the_folder(tmp_path):
    fitted, rows = student("hidden layers")
    for dtype, onnx, expected in [
        ("int8", True, "int8"),
        ("float32", True, "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float16", "float16"),
    ]:
        fitted.save_pretrained(tmp_path, dtype=dtype, onnx=onnx, X_test=rows)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["graph"] == {"dtype": expected, "preprocessed": False}
    y = fitted.predict(rows)
    fitted.save_pretrained(tmp_path, onnx="int8", X_test=rows, y_test=y)
    report = json.loads((tmp_path / "onnx/parity.json").read_text())
    assert report["accuracy"]["torch"] == 1


@pytest.mark.parametrize("name", ["quantiles and components", "sparse rows"])
def test_a_graph_that_cannot_be_served_is_said_to_be_so(name, tmp_path):
    with pytest.warns(UserWarning, match="so sk_aft.serving cannot predict with this student"):
        student(name)[0].save_pretrained(tmp_path, onnx=True)


def test_a_network_of_a_script_is_said_to_need_its_class(tmp_path):
    class Local(TwoLayers):
        pass

    fitted = small(module=Local).fit(IRIS, NAMES)
    with pytest.warns(UserWarning, match="is defined in a script, a notebook or a function"):
        fitted.save_pretrained(tmp_path)
    loaded = AFTClassifier.from_pretrained(tmp_path, trust=[Local])
    np.testing.assert_array_equal(loaded.predict_proba(IRIS), fitted.predict_proba(IRIS))


def test_a_loaded_student_can_be_shown(tmp_path):
    student("numbers")[0].save_pretrained(tmp_path)
    loaded = AFTClassifier.from_pretrained(tmp_path)
    assert "AFTClassifier" in loaded._repr_html_()
    assert loaded.loss_curve_ == []
    assert loaded.validation_scores_ is None
    assert loaded.n_iter_ == 0


def test_an_instance_of_a_network_of_this_package_is_measured_in_pytorch(tmp_path):
    fitted = small(module=MLP(4, 3)).fit(IRIS, NAMES)
    fitted.save_pretrained(tmp_path, X_test=IRIS, y_test=NAMES)
    assert "ms with PyTorch on " in (tmp_path / "README.md").read_text()
    with pytest.warns(UserWarning, match=r"does not hold the parameters \['module'\]"):
        loaded = AFTClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(IRIS), fitted.predict_proba(IRIS))
