"""Loads one deployed model in a fresh process, and prints what it costs as JSON.

    python -m benchmarks.speed._serving_process LOADER MODEL ROWS LABELS

Imports nothing that a model does not need before it is measured. Packages that scikit-learn and
sentence-transformers import where they happen to be installed are hidden.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

SIDE = 32  # of pictures
_NOT_NEEDED = ("datasets", "matplotlib", "pandas", "polars", "pyarrow", "rich")
_N_ALONE = 256
_N_UNCOUNTED = 20
_BATCH = 256
_MINILM_BATCH = 32
_PICTURE_BATCH = 16

Predict = Callable[[Any], Any]


class Needed(PathFinder):
    """Finds what `PathFinder` finds, except the hidden packages."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Return the specification of a module, or None."""
        return None if fullname in _NOT_NEEDED else super().find_spec(fullname, path, target)

    @staticmethod
    def find_distributions(context: Any) -> Any:
        """Return the installed distributions of a name, or all of them."""
        return () if context.name in _NOT_NEEDED else PathFinder.find_distributions(context)


def served(path: Path) -> Predict:
    """Load a folder that ``save_pretrained`` wrote."""
    from sk_aft.serving import load

    return load(path).predict


def unpickled(path: Path) -> Predict:
    """Load an estimator: the student in PyTorch, or one of scikit-learn."""
    import joblib

    return joblib.load(path).predict


def model2vec(path: Path) -> Predict:
    """Load a pipeline of model2vec."""
    from model2vec.inference import StaticModelPipeline

    return StaticModelPipeline.from_pretrained(path).predict


def encoder_and_probe(path: Path) -> Predict:
    """Load an encoder of texts in ONNX, and the weights of a logistic regression."""
    return _probe(path, encoder(path))


def pictures_and_probe(path: Path) -> Predict:
    """Load an encoder of pictures in ONNX, and the weights of a logistic regression."""
    return _probe(path, picture_encoder(path))


def _probe(path: Path, embed: Predict) -> Predict:
    import numpy as np

    with np.load(path / "probe.npz") as arrays:
        weights, bias, classes = arrays["weights"], arrays["bias"], arrays["classes"]
    return lambda rows: classes[(embed(rows) @ weights.T + bias).argmax(axis=1)]


def sentence_transformer_and_probe(path: Path) -> Predict:
    """Load an encoder of texts in PyTorch, and a pickled logistic regression."""
    import joblib
    from sentence_transformers import SentenceTransformer

    texts = SentenceTransformer(str(path / "encoder"), device="cpu")
    probe = joblib.load(path / "probe.joblib")
    return lambda rows: probe.predict(texts.encode(rows, show_progress_bar=False))


def hog_and_svm(path: Path) -> Predict:
    """Load a pickled support vector machine; scikit-image describes the pictures."""
    import joblib

    from benchmarks.accuracy._hog import histograms

    svm = joblib.load(path)
    return lambda pictures: svm.predict(histograms(pictures.mean(axis=-1, dtype="float32")))


def encoder(path: Path) -> Predict:
    """Return what embeds texts with ONNX Runtime; texts of similar length share a batch."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    session = _session(path)

    def embed(texts: list[str]) -> Any:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        features = {}
        for start in range(0, len(order), _MINILM_BATCH):
            rows = order[start : start + _MINILM_BATCH]
            tokens = np.zeros((len(rows), len(ids[rows[-1]])), dtype=np.int64)
            mask = np.zeros_like(tokens)
            for place, row in enumerate(rows):
                tokens[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            (found,) = session.run(None, {"tokens": tokens, "mask": mask})
            features.update(zip(rows, found, strict=True))
        return np.stack([features[row] for row in range(len(ids))])

    return embed


def picture_encoder(path: Path) -> Predict:
    """Return what embeds pictures with ONNX Runtime."""
    import numpy as np

    session = _session(path)

    def embed(pictures: Any) -> Any:
        starts = range(0, len(pictures), _PICTURE_BATCH)
        batches = (pictures[start : start + _PICTURE_BATCH] for start in starts)
        return np.concatenate([session.run(None, {"pictures": batch})[0] for batch in batches])

    return embed


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(path / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )


LOADERS = {
    load.__name__: load
    for load in (
        served,
        unpickled,
        model2vec,
        encoder_and_probe,
        pictures_and_probe,
        sentence_transformer_and_probe,
        hog_and_svm,
    )
}


def read_rows(path: Path) -> Callable[[], Any]:
    """Read a file; return what makes rows of it: a list of texts, or an array of pictures."""
    content = path.read_bytes()
    if path.suffix == ".json":
        texts = json.loads(content)
        return lambda: texts

    def pictures() -> Any:
        import numpy as np

        return np.frombuffer(content, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3)

    return pictures


def measure(loader: str, model: Path, rows_path: Path, labels: list[str]) -> dict[str, float]:
    """Return the costs of a model in this process, and its accuracy in per cent."""
    make_rows, known = read_rows(rows_path), set(sys.modules)
    start = time.perf_counter()
    predict = LOADERS[loader](model)
    rows = make_rows()
    predict(rows[:1])
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, "resident_mb": resident_mb()}
    found["packages_mb"] = packages_mb(set(sys.modules) - known)
    alone = [timed(predict, rows[row : row + 1])[0] for row in range(_N_UNCOUNTED + _N_ALONE)]
    timed(predict, rows[:_BATCH])
    batches = [rows[row : row + _BATCH] for row in range(0, len(rows), _BATCH)]
    times, predictions = zip(*(timed(predict, batch) for batch in batches), strict=True)
    of_whole_batches = times[: len(rows) // _BATCH]
    found["ms_alone"] = 1e3 * statistics.median(alone[_N_UNCOUNTED:])
    found["ms_in_batches"] = 1e3 * statistics.median(of_whole_batches) / _BATCH
    predicted = [str(label) for batch in predictions for label in batch]
    n_right = sum(map(str.__eq__, predicted, labels))
    return {**found, "accuracy": 100 * n_right / len(labels)}


def timed(predict: Predict, rows: Any) -> tuple[float, Any]:
    """Return the seconds of a prediction, and what it predicts."""
    start = time.perf_counter()
    labels = predict(rows)
    return time.perf_counter() - start, labels


def resident_mb() -> float:
    """Return the resident memory of this process; where /proc is missing, its peak so far."""
    import os
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def packages_mb(modules: set[str]) -> float:
    """Return the size of the installed packages that some modules belong to."""
    from importlib.metadata import distribution, packages_distributions

    owners = packages_distributions()
    loaded = {name.partition(".")[0] for name in modules}
    # An editable install lists no files.
    own = Path(sys.modules["sk_aft"].__path__[0]).rglob("*.*") if "sk_aft" in loaded else ()
    files = {path for path in own if path.suffix != ".pyc"}
    for name in {owner for package in loaded - {"sk_aft"} for owner in owners.get(package, ())}:
        files |= {Path(str(file.locate())) for file in distribution(name).files or ()}
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = Needed
    chosen, *paths = sys.argv[1:]
    model_path, rows_file, labels_file = map(Path, paths)
    right = json.loads(labels_file.read_text())
    print(json.dumps(measure(chosen, model_path, rows_file, right)))
