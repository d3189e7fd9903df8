"""Folders of every version of the format are read, as they were saved."""

import json

import numpy as np
import pandas as pd
import pytest

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.serving import load
from sk_aft.serving._folder import READERS
from sk_aft.serving._load import NotServableError
from tests._deployment.students import outputs
from tests.serving.save_version import SAVED

FOLDERS = sorted(path.parent for path in SAVED.glob("version_*/*/config.json"))


def test_every_version_has_saved_folders():
    versions = {int(path.parent.name.removeprefix("version_")) for path in FOLDERS}
    assert versions == set(READERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}, {path.name}")
def test_a_saved_folder_predicts_what_it_did(folder):
    expected = json.loads((folder / "expected.json").read_text())
    rows = expected["rows"]
    config = json.loads((folder / "config.json").read_text())
    assert f"version_{config['format_version']}" == folder.parent.name
    estimator = {"AFTClassifier": AFTClassifier, "AFTRegressor": AFTRegressor}[config["class"]]
    if config["rows"]["kind"] == "image":
        rows = np.array(rows, dtype=np.uint8)
    given = _frame(rows) if config["rows"]["kind"] == "frame" else rows
    found = outputs(estimator.from_pretrained(folder), given)
    np.testing.assert_allclose(found, expected["outputs"], atol=1e-4)
    if expected["is_served"]:
        # Pixels that are resized are rounded, and may be a level higher in the graph.
        tolerance = 1e-3 if config["rows"]["kind"] == "image" else 1e-4
        found = outputs(load(folder), rows)
        np.testing.assert_allclose(found, expected["outputs"], atol=tolerance)
    else:
        with pytest.raises(NotServableError):
            load(folder)


def _frame(rows):
    frame = pd.DataFrame(rows)
    return frame.assign(town=pd.Categorical(frame["town"]))
