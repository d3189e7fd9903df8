"""Numbers are scaled, and categories encoded, as by scikit-learn."""

import numpy as np
import onnxruntime
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from sk_aft._deployment.onnx._builder import GraphBuilder
from sk_aft._deployment.onnx._tables import (
    encoded_categories,
    encodes_categories,
    scaled_numbers,
    scales_numbers,
)
from sk_aft.serving._graph_inputs import category_name

NUMBERS = np.random.default_rng(0).normal(1e6, 3, (50, 3)) * [1, 1e-6, -1]
HOLES = np.where(np.arange(150).reshape(50, 3) % 7 == 3, np.nan, NUMBERS)


def run(graph, output, feeds):
    session = onnxruntime.InferenceSession(graph.model([output]).SerializeToString())
    return session.run(None, feeds)[0]


@pytest.mark.parametrize(
    "preprocessor",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        MinMaxScaler((-1, 2)),
        MinMaxScaler(clip=True),
        MaxAbsScaler(),
        RobustScaler(),
        RobustScaler(with_centering=False),
        RobustScaler(with_scaling=False),
        make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
        make_pipeline("passthrough", SimpleImputer(strategy="constant", fill_value=3)),
    ],
    ids=str,
)
def test_numbers(preprocessor):
    has_holes = "Imputer" in str(preprocessor)
    rows = HOLES if has_holes else NUMBERS
    preprocessor.fit(rows[:40])
    assert scales_numbers(preprocessor)
    graph = GraphBuilder()
    output = scaled_numbers(graph, preprocessor, graph.input("x", np.float64, ["n", 3]))
    found = run(graph, output, {"x": rows})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, preprocessor.transform(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "preprocessor",
    [
        PowerTransformer(),
        SimpleImputer(add_indicator=True),
        SimpleImputer(missing_values=0),
        make_pipeline(PowerTransformer(), StandardScaler()),
    ],
    ids=str,
)
def test_others_are_left_to_the_caller(preprocessor):
    rows = NUMBERS if "Power" in str(preprocessor) else HOLES
    if preprocessor.get_params().get("missing_values") == 0:
        rows = NUMBERS
    assert not scales_numbers(preprocessor.fit(rows))


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_an_imputer_that_drops_a_column_is_left_to_the_caller():
    rows = np.where([True, False, True], NUMBERS, np.nan)
    imputer = SimpleImputer().fit(rows)
    assert imputer.transform(rows).shape == (50, 2)
    assert not scales_numbers(imputer)


def test_categories():
    rows = np.array(
        [["a", "x"], [None, "y"], ["😀", "\ud83d"], ["", "x"], ["a", "x"]], dtype=object
    )
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(rows)
    assert encodes_categories(encoder)
    others = np.array([["a", None], [None, "z"], ["new", "\ud83d"], ["", "y"]], dtype=object)
    graph = GraphBuilder()
    names = [graph.input(name, object, ["n"]) for name in ("first", "second")]
    output = encoded_categories(graph, encoder, names)
    feeds = {
        name: np.array(list(map(category_name, column)), dtype=object)
        for name, column in zip(names, others.T, strict=True)
    }
    np.testing.assert_array_equal(run(graph, output, feeds), encoder.transform(others))


@pytest.mark.parametrize(
    "parameters",
    [{"drop": "first"}, {"min_frequency": 2}, {"handle_unknown": "error"}, {"sparse_output": True}],
)
def test_other_encoders_are_left_to_the_caller(parameters):
    encoder = OneHotEncoder(
        **{"handle_unknown": "ignore", "sparse_output": False, **parameters}
    ).fit([["a"], ["a"], ["b"], ["b"]])
    assert not encodes_categories(encoder)
