"""A fitted student -> the files of its folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from sk_aft._deployment._networks import build_network, describe_network, tensors_of
from sk_aft._deployment._number_format import in_number_format
from sk_aft._deployment._objects import OBJECTS, CannotSaveError, Encoder
from sk_aft._deployment._tokenizer_files import tokenizer_files
from sk_aft._student._inputs import last_step
from sk_aft._student._state import StudentState
from sk_aft.serving._folder import CONFIG, FORMAT, WEIGHTS
from sk_aft.serving._hub import FILES

_STEPS = ", ".join(name for name, module in OBJECTS.items() if module.startswith("sklearn"))
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
            "preprocessor": _preprocessor(student, encoder),
            "inputs": _inputs(student),
            "network": _network(student, parameters, network),
            "dtype": dtype,
            "transfer": _transfer(student),
            "teachers": student.teachers,
            "started_from": student.started_from,
            "versions": {
                "Python": platform.python_version(),
                **{name: version(name) for name in _PACKAGES},
            },
            "graph": None,
            "measured": None,
        }
    described, left_out = _parameters(parameters)
    config |= {"parameters": described, "parameters_left_out": left_out}
    arrays = in_number_format({f"network.{name}": array for name, array in network.items()}, dtype)
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


def check_directory(directory: Path) -> None:
    """Raise if a student cannot be saved here, or would replace the files of something else."""
    if os.path.lexists(directory) and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory: give one, or a new name.")
    others = sorted(path.name for pattern in FILES for path in directory.glob(pattern))
    if others and not _is_of_student(directory / CONFIG):
        raise FileExistsError(
            f"{directory} holds {', '.join(others)}, which are not of a student of sk-aft: give "
            "another directory, or remove them."
        )


def _is_of_student(config: Path) -> bool:
    try:
        return json.loads(config.read_bytes()).get("format") == FORMAT
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def replaced_files(directory: Path, *, all_of_them: bool) -> Iterator[Path]:
    """Yield a temporary folder whose files replace those of ``directory`` if all went well.

    Parameters
    ----------
    directory : Path
        Created if necessary.
    all_of_them : bool
        Whether files of a former student that have no successor are removed.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory))
    try:
        yield temporary
        files = [path.relative_to(temporary) for path in temporary.rglob("*") if path.is_file()]
        # The configuration comes last, since it holds the digests of the others.
        for file in sorted(files, key=lambda file: file.name == CONFIG):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / file, directory / file)
        if all_of_them:
            _remove_others(directory, files)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()


def _remove_others(directory: Path, kept: Collection[Path]) -> None:
    for pattern in FILES:
        for path in directory.glob(pattern):
            if path.relative_to(directory) not in kept:
                path.unlink()
    onnx = directory / "onnx"
    if onnx.is_dir() and not any(onnx.iterdir()):
        onnx.rmdir()


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
        "image_size": _size(student.inputs.preprocessor),
    }


def _size(preprocessor: Any) -> list[int] | None:
    size = getattr(last_step(preprocessor), "size_", None)
    return None if size is None else list(size)


def _targets(student: StudentState) -> dict[str, Any]:
    targets: Any = student.targets
    if targets.n_classes is None:
        return {"n_outputs": targets.n_outputs, "ndim": targets.ndim}
    classes = targets.classes
    values = classes.tolist()
    if not all(isinstance(value, (str, int, float, bool)) for value in values):
        raise CannotSaveError(
            f"classes of dtype {classes.dtype}, which are neither strings nor numbers"
        )
    Encoder("targets").describe(values)  # raises for text that no file can hold
    dtype = "str" if classes.dtype.kind == "U" else classes.dtype.name
    return {"classes": values, "dtype": dtype}


def _preprocessor(student: StudentState, encoder: Encoder) -> Any:
    try:
        return encoder.describe(student.inputs.preprocessor)
    except CannotSaveError as error:
        raise CannotSaveError(
            f"its preprocessor holds {error}. Apply that to the rows before fit and predict, use "
            f"preprocessor='auto', which reads columns of several kinds, or use steps of {_STEPS}"
        ) from error


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
    path = described["class"]
    if path.startswith("__main__:") or "<locals>" in path:
        warnings.warn(
            f"The network {path} is defined in a script, a notebook or a function: only "
            "from_pretrained(..., trust=[the class itself]) can load it. Put it into a module to "
            "load it by its name.",
            stacklevel=6,
        )
    n_weights = sum(weights.numel() for weights in student.module.parameters())
    return {**described, "n_weights": n_weights}


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
