"""Saves small students in the newest version of the format, once: later versions read them.

python -m tests.serving.save_version
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from sk_aft import AFTRegressor
from sk_aft.modules import ResNet
from sk_aft.serving._folder import READERS
from tests._deployment.students import (
    DIGITS,
    IMAGES,
    IRIS,
    LABELS,
    NAMES,
    OTHER_TEXTS,
    TEXTS,
    frame,
    outputs,
    small,
)
from tests.conftest import save_encoder

SAVED = Path(__file__).parent / "saved"


def students(directory):
    """Return students by name, with rows to predict and options of `save_pretrained`."""
    few = {"module__start": "random", "module__width": 8, "module__n_vectors": 512}
    text = small(preprocessor__vocab_size=300, **few).fit(TEXTS, LABELS)
    table = frame()[["age", "height", "town"]]
    others = table.iloc[[3, 1, 4]].reset_index(drop=True)
    columns = small(AFTRegressor).fit(table, 1e3 * np.arange(40))
    sparse = small(preprocessor=TfidfVectorizer(), module__width=8).fit(TEXTS, LABELS)
    transformer = small(module=save_encoder("bert", str(directory / "encoder")), module__n_layers=1)
    resnet = small(module=ResNet, module__widths=[4, 8])
    lite = small(max_epochs=1, module__n_blocks=1, module__image_size=32)
    images, digits = IMAGES[:60], DIGITS[:60]
    return {
        "texts": (text, OTHER_TEXTS, {"dtype": "float16"}),
        "numbers": (small().fit(IRIS, NAMES), IRIS[::30], {"onnx": True, "dtype": "int8"}),
        "columns": (columns, others, {"onnx": True, "dtype": "float16"}),
        "sparse": (sparse, OTHER_TEXTS, {}),
        "transformer": (
            transformer.fit(TEXTS, LABELS),
            OTHER_TEXTS,
            {"onnx": True, "dtype": "float16"},
        ),
        "resnet": (resnet.fit(images, digits), IMAGES[60:63], {"onnx": True}),
        "efficientnet": (lite.fit(images, digits), IMAGES[60:63], {"onnx": True}),
    }


def main():
    version = max(READERS)
    with TemporaryDirectory() as directory:
        made = students(Path(directory))
    for name, (student, rows, options) in made.items():
        folder = SAVED / f"version_{version}" / name
        if folder.exists():
            raise SystemExit(f"{folder} exists: saved folders of a version do not change.")
        student.save_pretrained(folder, **options)
        loaded = type(student).from_pretrained(folder)
        known = rows.to_dict("records") if hasattr(rows, "to_dict") else np.asarray(rows).tolist()
        is_served = name == "texts" or "onnx" in options
        expected = {
            "rows": known,
            "is_served": is_served,
            "outputs": outputs(loaded, rows).tolist(),
        }
        (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
