"""The examples of docs/guide/scaling.md run one after the other, as a reader would run them."""

import re
from pathlib import Path

import numpy as np
import pytest

for package in ("ray.data", "dask.dataframe", "distributed", "datasets"):
    pytest.importorskip(package)

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "scaling.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_examples_of_scaling_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL):
        if not block.startswith("# spark.py"):  # the package is large, and needs Java
            exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3] == "(308, 384)"
    assert "308" in printed[-2:]
    assert len(names["search"].cv_results_["params"]) == 2
    read = names["read_features"]
    plain = names["extractor"].set_params(cache=None).fit_transform(names["done"]["text"])
    np.testing.assert_allclose(read("from_dask"), plain.features, atol=1e-5)
    for path in ("from_ray", "from_map.parquet"):
        texts = names["pyarrow"].parquet.read_table(path, columns=["text"])["text"].to_pylist()
        order = {text: row for row, text in enumerate(names["done"]["text"])}
        expected = plain.features[[order[text] for text in texts]]
        np.testing.assert_allclose(read(path), expected, atol=1e-5)
