"""The script of docs/examples/node."""

import pytest

from sk_aft.serving import load

pytestmark = pytest.mark.slow
TEXTS = ["I lost my card", "Ünïcödé CAFÉ", "カード 💳", ""]


def test_node_predicts_what_python_does(installed, intents, printed_by):
    folder = installed("node")
    texts = [*intents.texts, *TEXTS]
    lines = printed_by(["node", "predict.js", intents.folder, *texts], folder).splitlines()
    student = load(intents.folder)
    labels, probabilities = zip(*(line.split() for line in lines), strict=True)
    assert list(labels) == student.predict(texts).tolist()
    largest = student.predict_proba(texts).max(axis=1)
    allowed = intents.parity["largest_allowed"]
    assert [float(value) for value in probabilities] == pytest.approx(largest, abs=allowed)
