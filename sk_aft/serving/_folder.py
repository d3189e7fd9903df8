"""Reads the folder of a student: its configuration and its arrays. Nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft.serving._arrays import as_strings, dequantized, parse_safetensors
from sk_aft.serving._version_1 import read_version_1

FORMAT = "sk-aft student"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
ONNX = "onnx/model.onnx"
# The reader of each version of the format. Readers of former versions stay as they are.
READERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: read_version_1}
_FILE_NAME = re.compile(r"(onnx/)?\w[\w.-]*")
# What damaged files cause, besides ValueError.
_DAMAGES = (
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
)
_READ_ALL_AGAIN = "Copy or download the whole folder again, or save the student again."


class FolderError(ValueError):
    """A folder that holds no student, is damaged or was changed; the message names the file."""


@dataclass(frozen=True)
class StudentFolder:
    """A folder that ``save_pretrained`` wrote.

    Parameters
    ----------
    path : Path
        Where it is.
    config : dict
        Its configuration, checked, in the form of the newest version.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> StudentFolder:
        """Read the configuration of a folder.

        Raises
        ------
        ValueError
            If the folder holds no student, or one that this version cannot read.
        """
        path = Path(path)
        config = path / CONFIG
        if not config.is_file():
            raise FolderError(
                f"{path} holds no student: there is no {CONFIG}. Expected a folder written by "
                "save_pretrained."
            )
        with explained(config):
            return cls(path, _read_config(config.read_bytes()))

    def read(self, name: str) -> bytes:
        """Return the content of a file, checked against its digest in the configuration.

        Raises
        ------
        ValueError
            If the file is outside of the folder, missing, truncated or changed.
        """
        if not _FILE_NAME.fullmatch(name):
            raise FolderError(
                f"{self.path / CONFIG} names the file {name!r}, which is not in the folder itself: "
                "it was not written by save_pretrained."
            )
        file, expected = self.path / name, self.config["files"].get(name)
        if expected is None or not file.is_file():
            raise FolderError(f"{self.path} has no file {name}. {_READ_ALL_AGAIN}")
        n_bytes = file.stat().st_size
        if n_bytes != expected["size"]:
            raise FolderError(
                f"{file} has {n_bytes} bytes instead of {expected['size']}: it is truncated "
                f"or was changed. {_READ_ALL_AGAIN}"
            )
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise FolderError(f"{file} was changed after it was saved. {_READ_ALL_AGAIN}")
        return content

    def has(self, name: str) -> bool:
        """Return whether the folder has a file."""
        return name in self.config["files"]

    @property
    def is_static_text(self) -> bool:
        """Whether it is served with NumPy alone: static embeddings of a tokenizer's tokens."""
        preprocessor = self.config["preprocessor"] or {}
        is_tokenized = preprocessor.get("$object") == "SubwordTokenizer"
        return self.config["network"]["class"] == "StaticText" and is_tokenized

    def text(self, name: str) -> str:
        """Return the content of a file of text; raises as `read`."""
        with explained(self.path / name):
            return self.read(name).decode()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the student; those of its network are float32 or as they were."""
        content = self.read(WEIGHTS)
        with explained(self.path / WEIGHTS):
            return dequantized(parse_safetensors(content))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn every error that a damaged file or folder causes into a `FolderError` that names it."""
    try:
        yield
    except FolderError:
        raise
    except ValueError as error:
        raise FolderError(f"{path} cannot be read: {error}") from error
    except _DAMAGES as error:
        raise FolderError(f"{path} cannot be read: it is damaged ({error!r}).") from error


def classes_of(targets: dict[str, Any]) -> np.ndarray:
    """Return the classes of a classifier from its configuration, (n_classes,).

    Raises
    ------
    TypeError, ValueError
        If they are not sorted and different, or of an unknown dtype.
    """
    name = targets["dtype"]
    if name not in ("str", "object") and np.dtype(name).kind not in "biuf":
        raise ValueError(f"its classes have the dtype {name!r}, which is unknown")
    labels = targets["classes"]
    classes = as_strings(labels) if name == "str" else np.array(labels, dtype=np.dtype(name))
    if classes.tolist() != labels or not np.array_equal(np.unique(classes), classes):
        raise ValueError(f"its classes are not sorted and different, of dtype {name}")
    return classes


def _read_config(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON document ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError("it is not the configuration of a student of sk-aft")
    version: Any = config.get("format_version")
    is_number = type(version) is int
    if not is_number or version not in READERS:
        newest = max(READERS)
        advice = "upgrade sk-aft with: pip install --upgrade sk-aft"
        is_newer = is_number and version > newest
        raise ValueError(
            f"it has format version {version!r}, and this version of sk-aft reads 1 to {newest}"
            + (f": {advice}" if is_newer else "")
        )
    return READERS[version](config)


def check_identity(folder: StudentFolder, identity: Any, file: str) -> None:
    """Raise ValueError if a file was made from another student than the rest of the folder."""
    if identity != folder.config["identity"]:
        raise FolderError(
            f"{folder.path / file} was exported from another student than {WEIGHTS}: export it "
            "again with export_onnx."
        )
