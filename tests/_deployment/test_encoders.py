"""Students that are the first layers of text encoders as folders."""

import numpy as np
import pytest

from sk_aft import AFTClassifier
from tests._deployment.students import LABELS, OTHER_TEXTS, TEXTS, small


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "t5"])
def test_text_encoders_of_every_kind(kind, encoder_directory, tmp_path):
    directory = encoder_directory(kind)
    fitted = small(module=directory, max_epochs=1).fit(TEXTS, LABELS)
    fitted.save_pretrained(tmp_path)
    loaded = AFTClassifier.from_pretrained(tmp_path)
    expected = fitted.predict_proba(OTHER_TEXTS)
    np.testing.assert_array_equal(loaded.predict_proba(OTHER_TEXTS), expected)
    assert directory not in (tmp_path / "README.md").read_text()
