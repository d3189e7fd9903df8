"""Random rows check an export where no row was given."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from sk_aft._deployment._example_rows import example_rows
from tests._deployment.students import IRIS, NAMES, small

UNLIKE = IRIS * [1, 100, 1e-3, 1e6] + [0, 0, 0, 1e9]


@pytest.mark.parametrize(
    "preprocessor",
    [
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        PowerTransformer(),
        QuantileTransformer(n_quantiles=20),
        make_pipeline(SimpleImputer(), MinMaxScaler(), StandardScaler()),
        make_pipeline("passthrough", RobustScaler(), PCA(2)),
    ],
    ids=lambda preprocessor: type(preprocessor).__name__,
)
def test_numbers_are_about_as_large_as_those_of_training(preprocessor, tmp_path):
    fitted = small(preprocessor=preprocessor).fit(UNLIKE, NAMES)
    rows = example_rows(fitted._student).values
    assert rows.shape == (32, 4)
    spread = np.ptp(UNLIKE, axis=0)
    middle = (UNLIKE.max(axis=0) + UNLIKE.min(axis=0)) / 2
    assert (np.abs(np.median(rows, axis=0) - middle) < spread).all()
    assert (np.ptp(rows, axis=0) > 0.1 * spread).all()
    fitted.save_pretrained(tmp_path, onnx=True)
    assert json.loads((tmp_path / "onnx/parity.json").read_text())["n_rows"] == 32


def test_a_preprocessor_that_random_rows_do_not_suit(tmp_path):
    steps = make_pipeline(TruncatedSVD(1), PowerTransformer("box-cox"))
    fitted = small(preprocessor=steps).fit(IRIS, NAMES)
    with pytest.raises(ValueError, match=r"pass X_test=, 32 of whose rows check it"):
        fitted.save_pretrained(tmp_path / "new", onnx=True)
    assert not (tmp_path / "new").exists()
    fitted.save_pretrained(tmp_path / "new", onnx=True, X_test=IRIS)
