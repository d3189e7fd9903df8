"""TabICL, a foundation model of tables, teaches a student: its real code, with random weights."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor, TeacherPredictions

tabicl = pytest.importorskip("tabicl")
TabICL = pytest.importorskip("tabicl._model.tabicl").TabICL


@pytest.fixture
def checkpoint(tmp_path):
    """Return a file as TabICL reads it: a tiny model that has learned nothing."""
    torch.manual_seed(0)
    config = {
        "max_classes": 3,
        "embed_dim": 16,
        "col_num_blocks": 1,
        "col_nhead": 2,
        "col_num_inds": 4,
        "row_num_blocks": 1,
        "row_nhead": 2,
        "row_num_cls": 2,
        "icl_num_blocks": 1,
        "icl_nhead": 2,
    }
    model = TabICL(**config)
    torch.save({"config": config, "state_dict": model.state_dict()}, tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def test_a_tabular_foundation_model_is_a_teacher(checkpoint):
    X, y = load_iris(return_X_y=True)
    marked = np.where(np.arange(150) % 2, y, -1)
    estimator = tabicl.TabICLClassifier(
        n_estimators=1, model_path=checkpoint, allow_auto_download=False, device="cpu"
    )
    teacher = TeacherPredictions(estimator, cv=2, missing_label=-1)
    student = AFTClassifier(missing_label=-1, random_state=0, max_epochs=20)
    pipe = make_pipeline(FoundationFeatureExtractor(teacher), student).fit(X, marked)
    soft_targets = pipe[0].transform(X).soft_targets
    assert soft_targets.shape == (150, 3)
    np.testing.assert_allclose(soft_targets.sum(axis=1), 1, rtol=1e-5)
    assert "soft targets" in pipe[-1].teacher_weights_
    assert pipe.score(X, y) > 0.7
