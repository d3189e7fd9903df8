"""A fitted student -> the files of its folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from sk_aft._deployment._networks import build_network, describe_network, tensors_of
from sk_aft._deployment._objects import CannotSaveError, Encoder
from sk_aft._deployment._quantize import quantized
from sk_aft._deployment._tokenizer_files import tokenizer_files
from sk_aft._student._state import StudentState
from sk_aft.serving._folder import CONFIG, FORMAT, WEIGHTS

_PACKAGES = ("sk-aft", "torch", "scikit-learn", "numpy", "tokenizers")


def student_files(
    student: StudentState, parameters: Mapping[str, Any], *, dtype: str
) -> dict[str, bytes]:
    """Return the content of config.json, model.safetensors and the tokenizers' files.

    Parameters
    ----------
    student : StudentState
        A fitted student.
    parameters : mapping
        Parameters of the estimator, those set by prefix included.
    dtype : {"float32", "float16", "int8"}
        Number format of the weights.

    Returns
    -------
    files : dict of str to bytes
        By their names. None of them holds a training row.

    Raises
    ------
    ValueError
        If the network, the preprocessor or the classes cannot be described without code.
    """
    tokenizers = tokenizer_files(student.inputs.preprocessor)
    encoder = Encoder("preprocessor", tokenizers)
    network = tensors_of(student.module)
    owner = "AFTRegressor" if student.targets.n_classes is None else "AFTClassifier"
    with _explained(owner):
        config = {
            "format": FORMAT,
            "format_version": 1,
            "class": owner,
            "identity": identity_of(student),
            "rows": _rows(student, encoder),
            "targets": _targets(student),
            "preprocessor": encoder.describe(student.inputs.preprocessor),
            "inputs": _inputs(student),
            "network": _network(student, parameters, network),
            "dtype": dtype,
            "transfer": _transfer(student),
            "teachers": student.teachers,
            "started_from": student.started_from,
            "versions": {name: version(name) for name in _PACKAGES},
        }
    described, left_out = _parameters(parameters)
    config |= {"parameters": described, "parameters_left_out": left_out}
    arrays = quantized({f"network.{name}": array for name, array in network.items()}, dtype)
    arrays |= encoder.arrays
    if student.targets.n_classes is None:
        scaler: Any = student.targets
        arrays |= {"targets.mean": scaler.scaler.mean_, "targets.scale": scaler.scaler.scale_}
    files = {WEIGHTS: save(arrays)}
    files |= {name: step.tokenizer_json_.encode() for name, step in tokenizers.items()}
    return {CONFIG: as_json({**config, "files": digests(files)}), **files}


def identity_of(student: StudentState) -> str:
    """Return a digest of the weights in float32, the preprocessor's numbers and the targets."""
    encoder = Encoder("preprocessor", tokenizer_files(student.inputs.preprocessor))
    encoder.describe(student.inputs.preprocessor)
    targets: Any = student.targets
    of_targets = {} if targets.n_classes else {"targets.scale": targets.scaler.scale_}
    arrays = {**tensors_of(student.module), **encoder.arrays, **of_targets}
    digest = hashlib.sha256(json.dumps(_targets(student)).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def digests(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return the size and the SHA-256 of each file."""
    return {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }


def as_json(value: Any) -> bytes:
    """Return JSON that a person can read."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def replaced_folder(directory: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files replace those of ``directory`` if all went well."""
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: expected a directory, or a new name.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield temporary
        for old in (directory / "onnx").glob("*"):
            if old.name in ("model.onnx", "parity.json"):
                old.unlink()
        # The configuration comes last, since it holds the digests of the others.
        files = [path for path in temporary.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == CONFIG):
            target = directory / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _explained(owner: str) -> Iterator[None]:
    try:
        yield
    except CannotSaveError as error:
        raise ValueError(
            f"This {owner} cannot be saved as a folder, which holds no code: {error}. "
            "joblib.dump(student, path) saves it with its code."
        ) from error


def _rows(student: StudentState, encoder: Encoder) -> dict[str, Any]:
    schema = student.schema
    names = schema.feature_names_in
    return {
        "kind": schema.kind,
        "n_features_in": schema.n_features_in,
        "feature_names_in": None if names is None else [str(name) for name in names],
        "columns": encoder.describe(schema.columns),
    }


def _targets(student: StudentState) -> dict[str, Any]:
    targets: Any = student.targets
    if targets.n_classes is None:
        return {"n_outputs": targets.n_outputs, "ndim": targets.ndim}
    classes = targets.classes
    values = classes.tolist()
    if not all(isinstance(value, (str, int, float, bool)) for value in values):
        kinds = sorted({type(value).__name__ for value in values})
        raise CannotSaveError(f"classes of type {', '.join(kinds)}; use strings or numbers")
    dtype = "str" if classes.dtype.kind == "U" else classes.dtype.name
    return {"classes": values, "dtype": dtype}


def _inputs(student: StudentState) -> dict[str, Any]:
    inputs = student.inputs
    return {
        "is_automatic": inputs.is_automatic,
        "keeps_integers": inputs.keeps_integers,
        "dtype": inputs.dtype,
        "sizes": inputs.sizes,
        "are_pictures": inputs.are_pictures,
    }


def _network(
    student: StudentState, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    module = parameters["module"]
    prefixed = {
        name.removeprefix("module__"): value
        for name, value in parameters.items()
        if name.startswith("module__")
    }
    sizes = {**student.inputs.sizes, "n_outputs": student.n_outputs}
    try:
        described = describe_network(student.module, module, prefixed, sizes)
        build_network(described, tensors, trust=[module] if callable(module) else [])
    except ValueError as error:
        raise CannotSaveError(str(error).rstrip(".")) from error
    return described


def _transfer(student: StudentState) -> dict[str, Any]:
    method = student.transfer_method if student.beta > 0 else None
    if isinstance(method, list):
        method = [[name, strength] for name, strength in method]
    try:
        json.dumps(method)
    except TypeError:
        method = "custom"
    return {
        "method": method,
        "beta": float(student.beta),
        "n_foundation_features": student.n_foundation_features,
    }


def _parameters(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that can be described, and the names of the others."""
    described, left_out = {}, []
    for name, value in sorted(parameters.items()):
        encoder = Encoder("parameter")
        try:
            described[name] = encoder.describe(value)
            if encoder.arrays:
                raise CannotSaveError("an array")
        except CannotSaveError:
            described.pop(name, None)
            left_out.append(name)
    return described, left_out
