"""The benchmark of tables: rows that do not overlap, and a table of differences."""

import json
import sys

import numpy as np
import pytest

from benchmarks.tables import TABLES, main, read


@pytest.mark.parametrize("table", ["friedman1", "digits"])
def test_labelled_unlabelled_and_test_rows_are_different_rows(table):
    split = read(table, seed=0)
    rows, targets = TABLES[table](0)
    assert len(split.targets) == 300
    assert len(split.rows) + len(split.test_rows) <= len(rows)
    # Digits has equal pictures, so rows are counted.
    _, of_table = np.unique(rows, axis=0, return_counts=True)
    _, of_split = np.unique(np.vstack([split.rows, split.test_rows]), axis=0, return_counts=True)
    assert of_split.max() <= of_table.max()
    matches = (np.asarray(rows)[:, None] == split.rows[None, :5]).all(axis=2)
    assert (np.asarray(targets)[matches.argmax(axis=0)] == split.targets[:5]).all()


@pytest.mark.parametrize("table", ["friedman1", "digits"])
def test_only_the_first_rows_have_a_label(table):
    split = read(table, seed=0)
    np.testing.assert_array_equal(split.marked[:300], split.targets)
    np.testing.assert_array_equal(split.marked[300:], split.missing_label)


def test_the_table_has_the_difference_from_the_better_rival(tmp_path, monkeypatch, capsys):
    path = tmp_path / "lines.jsonl"
    errors = {"boosting": [5.0, 7.0], "MLP alone": [9.0, 8.0], "MLP taught": [4.0, 5.0]}
    more = {"seconds": 1.0, "ms_in_batches": 0.01, "ms_alone": 0.5}
    lines = [
        {"table": "churn", "method": method, "seed": seed, "error": error, **more}
        for method, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["tables", "--print", "--results", str(path)])
    main()
    text = " ".join(capsys.readouterr().out.split())
    assert "MLP taught 4.50 +- 0.50 (2)" in text
    assert "MLP taught minus boosting: -1.50 +- 0.50" in text
