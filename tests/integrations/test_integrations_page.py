"""The examples of docs/guide/integrations.md run one after the other, as a reader runs them."""

import re
from pathlib import Path

import pytest

skore = pytest.importorskip("skore")
mlflow = pytest.importorskip("mlflow")
for package in ("optuna", "cleanlab", "imblearn", "sqlalchemy", "skops"):
    pytest.importorskip(package)

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "integrations.md"


@pytest.mark.slow
# The same as in test_mlflow.py.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning")
def test_the_examples_of_integrations_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL):
        if file := re.match(r"# (\w+\.py)\n", block):  # a block that is a file
            (tmp_path / file[1]).write_text(block)
        else:
            with skore.configuration(show_progress=False):
                exec(compile(block, str(PAGE), "exec"), names)
    again = mlflow.sklearn.load_model(names["logged"].model_uri)
    mlflow.set_tracking_uri(before)

    texts, labels = names["test_questions"], names["test_labels"]
    assert {"student", "probe"} == set(names["comparison"].reports_)
    assert names["report"].metrics.accuracy() > 0.9
    assert names["study"].best_params.keys() == {"transfer", "beta", "lr"}
    assert names["best"].score(texts, labels) > 0.9
    printed = capsys.readouterr().out
    right, flipped, found = map(int, re.search(r"(\d+) of (\d+) .* among (\d+)", printed).groups())
    assert right >= 0.7 * flipped
    assert right >= 0.7 * found
    assert str(names["strange"]) in printed or str(names["strange"][::-1]) in printed
    assert names["balanced"].score(texts, labels) > 0.85
    assert (again.predict(texts) == names["student"].predict(texts)).all()
    assert printed.splitlines()[-1] == "['age_limit']"
