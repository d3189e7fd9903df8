"""Whether an estimator knows the mark of rows without a label."""

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, CascadeClassifier
from sk_aft._data._marks import reads_unlabeled


@pytest.mark.parametrize(
    ("estimator", "missing_label", "expected"),
    [
        (AFTClassifier(missing_label=-1), -1, True),
        (AFTClassifier(missing_label=None), None, False),
        (AFTClassifier(missing_label=np.nan), np.nan, True),
        (make_pipeline(StandardScaler(), AFTClassifier(missing_label="")), "", True),
        (CascadeClassifier(GaussianNB(), GaussianNB(), missing_label=-1), -1, True),
        (GaussianNB(), -1, False),
        (AFTClassifier(missing_label=-1), None, False),
    ],
)
def test_an_estimator_reads_the_mark_that_it_has_as_a_parameter(estimator, missing_label, expected):
    assert reads_unlabeled(estimator, missing_label) is expected


def test_another_mark_is_an_error_that_says_how_to_mend_it():
    with pytest.raises(ValueError, match=r"but the estimator has missing_label=-1.*set the est"):
        reads_unlabeled(AFTClassifier(missing_label=-1), "")
    with pytest.raises(ValueError, match="but the estimator 'student' has missing_label=None"):
        reads_unlabeled(make_pipeline(AFTClassifier()), -1, "student")
