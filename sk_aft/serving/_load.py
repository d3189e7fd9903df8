"""The folder of a student -> an object that predicts."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from sk_aft._data._rows import Rows
from sk_aft._data._texts import TextEncoder
from sk_aft.serving._folder import (
    ONNX,
    FolderError,
    StudentFolder,
    check_identity,
    classes_of,
    explained,
)
from sk_aft.serving._graph_inputs import GraphInputs
from sk_aft.serving._hub import local_folder
from sk_aft.serving._onnx import OnnxNetwork
from sk_aft.serving._rows import check_rows
from sk_aft.serving._static_text import StaticTextNetwork
from sk_aft.serving._student import Run, ServedClassifier, ServedRegressor


class NotServableError(FolderError):
    """A student that predicts with PyTorch only."""


# Bounds the memory for the tokens of many texts.
_TEXTS_AT_ONCE = 4096


def load(
    dir_or_repo: Any,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> ServedClassifier | ServedRegressor:
    """Load a student for prediction, without PyTorch and scikit-learn.

    Static students of texts need numpy and tokenizers. Others need onnxruntime and a folder that
    was saved with ``onnx=True``; images also need pillow. Nothing in the folder is executed.

    Parameters
    ----------
    dir_or_repo : path-like or str
        A folder that ``save_pretrained`` wrote, or the name of a repository on the Hugging Face
        hub, "owner/name".
    revision : str, optional
        Branch, tag or commit of the repository; default: its main branch.
    token : str or bool, optional
        Token of the hub for private repositories; default: the one that is stored on this machine.
    local_files_only : bool, default=False
        Whether to use only what was downloaded before.

    Returns
    -------
    student : ServedClassifier or ServedRegressor
        With ``predict``, and of a classifier ``predict_proba`` and ``classes_``. It may be used by
        several threads at once.

    Raises
    ------
    ValueError
        If the folder holds no student, is damaged, or holds a network that needs ``onnx/``, which
        is missing.
    ImportError
        If a package is missing; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> from sk_aft import AFTClassifier
    >>> from sk_aft.serving import load
    >>> student = AFTClassifier(beta=0, module__start="random", random_state=0)
    >>> student = student.fit(["my card is lost", "the exchange rate"] * 8, ["card", "rate"] * 8)
    >>> folder = tempfile.mkdtemp()
    >>> student.save_pretrained(folder)
    >>> load(folder).predict("my card")
    array(['card'], dtype='<U4')
    """
    options: Any = {"revision": revision, "token": token, "local_files_only": local_files_only}
    folder = StudentFolder.open(local_folder(dir_or_repo, **options))
    config = folder.config
    with explained(folder.path):
        run, settings = (_static_text(folder), {}) if folder.is_static_text else _graph(folder)
        read = partial(check_rows, kind=config["rows"]["kind"], **settings)
        again = partial(load, os.path.abspath(folder.path))
        targets = config["targets"]
        if config["class"] == "AFTRegressor":
            return ServedRegressor(read, run, again, targets["ndim"])
        return ServedClassifier(read, run, again, classes_of(targets))


def _static_text(folder: StudentFolder) -> Run:
    """Return what runs a student of static embeddings, in NumPy."""
    state = folder.config["preprocessor"]["state"]
    encode = TextEncoder(folder.text(state["tokenizer_json_"]["$file"]), state["max_length"])
    arrays = folder.arrays()
    prefix = "network."
    own = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
    network = StaticTextNetwork(own)
    _check_outputs(folder, network.n_outputs)
    if encode.n_ids > network.n_tokens:
        raise ValueError("its tokenizer has more tokens than there are vectors")
    scale = _scale(folder.config, arrays)

    def run(rows: Rows) -> dict[str, np.ndarray]:
        values = rows.values
        pieces = [values[i : i + _TEXTS_AT_ONCE] for i in range(0, len(values), _TEXTS_AT_ONCE)]
        logits = [network(encode(piece))[0] for piece in pieces]
        whole = logits[0] if len(logits) == 1 else np.concatenate(logits)
        return _decoded(whole.astype(np.float64), *scale)

    return run


def _scale(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Return scale and mean of a regressor's targets, each (n_targets,); None of a classifier."""
    if config["class"] == "AFTClassifier":
        return None, None
    scale, mean = arrays["targets.scale"], arrays["targets.mean"]
    if not scale.shape == mean.shape == (config["targets"]["n_outputs"],):
        raise ValueError("it has another number of targets than their scales")
    return scale, mean


def _decoded(logits: np.ndarray, scale: Any, mean: Any) -> dict[str, np.ndarray]:
    if scale is not None:
        return {"predictions": logits * scale + mean}
    # Divided by their sums in predict_proba.
    return {"probabilities": np.exp(logits - logits.max(axis=1, keepdims=True))}


def _graph(folder: StudentFolder) -> tuple[Run, dict[str, Any]]:
    """Return what runs a student in ONNX Runtime, and how its rows are checked."""
    name = folder.config["network"]["class"]
    if not folder.has(ONNX):
        raise NotServableError(
            f"{folder.path} holds a student whose network, {name}, is served by ONNX Runtime, and "
            "has no file onnx/model.onnx: save it with save_pretrained(..., onnx=True), or call "
            "student.export_onnx(directory, X)."
        )
    network = OnnxNetwork(folder.path / ONNX, content=folder.read(ONNX))
    check_identity(folder, network.metadata["identity"], ONNX)
    metadata = network.metadata
    _check_outputs(folder, metadata.get("n_outputs") or len(metadata["classes"]))
    is_classifier = folder.config["class"] == "AFTClassifier"
    expected = ["probabilities" if is_classifier else "predictions", "features"]
    if sorted(network.names) != sorted(expected):
        raise ValueError(f"its graph has the outputs {network.names}, expected {expected}")
    described = metadata["inputs"]
    if any(spec.get("preprocessed") for spec in described):
        raise NotServableError(
            f"{folder.path} holds a student whose preprocessor is not a part of its graph: apply "
            "the preprocessor first and run onnx/model.onnx with onnxruntime, or load the student "
            f"with {folder.config['class']}.from_pretrained, which needs PyTorch. If it is a "
            "Pipeline that ends in SubwordTokenizer, train with SubwordTokenizer alone."
        )
    inputs = GraphInputs(described, folder.text)

    def run(rows: Rows) -> dict[str, np.ndarray]:
        outputs: dict[str, np.ndarray] = {}
        for indices, feeds in inputs.batches(rows):
            for output, values in network(feeds).items():
                if output not in outputs:
                    outputs[output] = np.empty((len(rows), *values.shape[1:]), values.dtype)
                outputs[output][indices] = values
        return outputs

    return run, _row_settings(folder.config["rows"], described)


def _row_settings(rows: dict[str, Any], described: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the arguments of `check_rows`."""
    if rows["kind"] == "frame":
        columns = {spec["column"]: spec["kind"] for spec in described}
        return {"column_kinds": columns}
    return {
        "n_features_in": rows["n_features_in"],
        "names": rows["feature_names_in"],
        "n_bands": described[0].get("n_channels"),
        "image_size": rows["image_size"],
        "allow_nan": described[0].get("allows_nan", False),
    }


def _check_outputs(folder: StudentFolder, n_outputs: int) -> None:
    targets = folder.config["targets"]
    n_targets = len(targets["classes"]) if "classes" in targets else targets["n_outputs"]
    if n_outputs != n_targets:
        raise ValueError(
            f"its network has {n_outputs} outputs, and there are {n_targets} classes or targets"
        )
