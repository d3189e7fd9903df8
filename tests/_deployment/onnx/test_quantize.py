"""Smaller weights: size, difference and score."""

import logging

import numpy as np
import onnx
import pytest

from sk_aft import AFTClassifier
from sk_aft._deployment.onnx import export_student
from sk_aft._student._schema import check_rows
from sk_aft.datasets import load_banking77
from tests._deployment.onnx.test_export import (
    DIGITS,
    GREY,
    LITE,
    SPECIES,
    checked,
    export,
    fit,
    student,
)

NAMES = ("texts", "frame", "images", "sparse rows, own network")


def types_of(directory):
    """Return the number of weights of each type."""
    counts = {}
    for weights in onnx.load(directory / "model.onnx").graph.initializer:
        name = onnx.TensorProto.DataType.Name(weights.data_type)
        counts[name] = counts.get(name, 0) + int(np.prod(weights.dims))
    return counts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("quantize", "difference"), [("float16", 2e-3), ("int8", 0.05)])
def test_differences_are_small(name, quantize, difference, tmp_path, capfd, recwarn):
    report = export(name, tmp_path, quantize=quantize)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert report["quantize"] == quantize
    assert report["largest_difference"]["probabilities"] < difference
    assert report["equal_predictions"] > 0.9


@pytest.mark.parametrize("name", ["texts", "images", "frame"])
def test_float16_halves_the_size(name, tmp_path):
    export(name, tmp_path / "large")
    export(name, tmp_path / "small", quantize="float16")
    large, small = types_of(tmp_path / "large"), types_of(tmp_path / "small")
    assert small["FLOAT16"] > 0.9 * large["FLOAT"]
    assert small["FLOAT16"] + small["FLOAT"] == large["FLOAT"]


@pytest.mark.parametrize("name", ["texts", "texts, transformer"])
def test_int8_of_texts_is_a_quarter(name, tmp_path):
    report = export(name, tmp_path, quantize="int8")
    assert report["largest_difference"]["probabilities"] < 0.05
    n_weights = sum(weights.numel() for weights in student(name)[0].module_.parameters())
    assert types_of(tmp_path)["INT8"] > 0.9 * n_weights
    assert (tmp_path / "model.onnx").stat().st_size < 1.3 * n_weights + 30_000


def test_convolutions_are_stored_in_float16(tmp_path):
    export("images", tmp_path, quantize="int8")
    types = types_of(tmp_path)
    assert types["FLOAT16"] > 0.7 * sum(types.values())
    assert "INT8" not in types


def test_what_is_small_stays_float32(tmp_path):
    export("own network", tmp_path / "large")
    for quantize in ("float16", "int8"):
        report = export("own network", tmp_path / quantize, quantize=quantize)
        assert report["largest_difference"]["probabilities"] < 1e-6
        assert types_of(tmp_path / quantize) == types_of(tmp_path / "large")


def test_numbers_beyond_float16_stay_float32(tmp_path):
    fitted = fit(GREY[:60], DIGITS[:60], **LITE)
    fitted.module_.head.weight.data *= 1e7
    rows = checked(fitted, GREY[60:90])
    report = export_student(fitted._student, rows, tmp_path, quantize="float16", identity="")
    assert np.isfinite(report["largest_difference"]["probabilities"])
    largest = [
        np.abs(onnx.numpy_helper.to_array(weights)).max()
        for weights in onnx.load(tmp_path / "model.onnx").graph.initializer
        if weights.data_type == onnx.TensorProto.FLOAT and weights.dims
    ]
    assert max(largest) > 65504


def test_the_accuracy_stays_on_real_texts(tmp_path):
    texts, intents = load_banking77(labels_per_class=10, return_X_y=True)
    others, true = load_banking77(subset="test", labels_per_class=4, return_X_y=True)
    fitted = AFTClassifier(beta=0, random_state=0, module__start="random", max_epochs=20)
    fitted.fit(texts, intents)
    rows, _ = check_rows(others, fitted._student.schema, owner="")
    report = export_student(
        fitted._student, rows, tmp_path, labels=true, quantize="int8", identity=""
    )
    accuracy = report["accuracy"]
    assert accuracy["torch"] == pytest.approx(fitted.score(others, true))
    assert accuracy["torch"] > 0.3
    assert accuracy["onnx"] == pytest.approx(accuracy["torch"], abs=0.01)


def test_labels_of_a_quantized_table(tmp_path):
    report = export("numbers", tmp_path, labels=SPECIES[1::2], quantize="int8")
    fitted, rows = student("numbers")
    assert report["accuracy"]["torch"] == fitted.score(rows, SPECIES[1::2])


def test_settings_of_logging_are_kept(tmp_path):
    logging.disable(logging.INFO)
    try:
        export("texts", tmp_path, quantize="int8")
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)
