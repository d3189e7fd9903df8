"""Saves small students in the newest version of the format, once: later versions read them.

python -m tests.serving.save_version
"""

import json
from pathlib import Path

import numpy as np

from sk_aft import AFTRegressor
from sk_aft.serving._folder import READERS
from tests._deployment.students import (
    IRIS,
    LABELS,
    NAMES,
    OTHER_TEXTS,
    TEXTS,
    frame,
    outputs,
    small,
)

SAVED = Path(__file__).parent / "saved"


def students():
    """Return students by name, with rows to predict and options of `save_pretrained`."""
    few = {"module__start": "random", "module__width": 8, "module__n_vectors": 512}
    text = small(preprocessor__vocab_size=300, **few).fit(TEXTS, LABELS)
    table = frame()[["age", "height", "town"]]
    others = table.iloc[[3, 1, 4]].reset_index(drop=True)
    columns = small(AFTRegressor).fit(table, 1e3 * np.arange(40))
    return {
        "texts": (text, OTHER_TEXTS, {"dtype": "float16"}),
        "numbers": (small().fit(IRIS, NAMES), IRIS[::30], {"onnx": True, "dtype": "int8"}),
        "columns": (columns, others, {"onnx": True}),
    }


def main():
    version = max(READERS)
    for name, (student, rows, options) in students().items():
        folder = SAVED / f"version_{version}" / name
        if folder.exists():
            raise SystemExit(f"{folder} exists: saved folders of a version do not change.")
        student.save_pretrained(folder, **options)
        loaded = type(student).from_pretrained(folder)
        known = rows.to_dict("records") if hasattr(rows, "to_dict") else np.asarray(rows).tolist()
        expected = {"rows": known, "outputs": outputs(loaded, rows).tolist()}
        (folder / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    main()
