"""Runs an exported graph with ONNX Runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft.serving._external_data import has_external_data

FORMAT_VERSION = 1
METADATA = "sk_aft"


class OnnxNetwork:
    """A graph that `AFTClassifier.export_onnx` has written; may be called from several threads.

    Parameters
    ----------
    path : str or PathLike
        The file, model.onnx.
    n_threads : int, default=1
        Number of threads of one call. Small networks are not faster with several; call from
        several threads instead.
    content : bytes, optional
        Content of the file, where it was read before; the file is not read then.

    Attributes
    ----------
    metadata : dict
        What serving needs to know: ``format_version``, ``identity``, ``inputs`` (see
        `GraphInputs`), ``classes`` or ``n_outputs``, and ``quantize``.
    names : list of str
        Names of the outputs.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the file is missing or damaged, if its weights lie in other files, or if it was not
        written by this package or by a newer version of it.
    """

    def __init__(
        self, path: str | os.PathLike[str], n_threads: int = 1, content: bytes | None = None
    ) -> None:
        self._path = os.fspath(path)
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"onnxruntime is needed to run {self._path} but could not be imported "
                f"({error}). Install it with: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.log_severity_level = 4
        # Without it, files in a format of ONNX Runtime's own would be read, too.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        providers = ["CPUExecutionProvider"]
        try:
            model = Path(path).read_bytes() if content is None else content
            if has_external_data(model):
                raise ValueError("its weights lie in other files, which are not read")
            self._session = onnxruntime.InferenceSession(model, options, providers)
            stored = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # errors of many types, which share no base
            raise ValueError(
                f"{self._path} is not a readable ONNX model ({str(error).strip()}): it is "
                "missing or damaged. Export it again, or copy it again."
            ) from error
        self.metadata = _checked(stored.get(METADATA), self._path)
        self.names = [value.name for value in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by their names.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            The inputs of one batch by their names.

        Returns
        -------
        outputs : dict of str to ndarray
            Of a classifier "probabilities", (B, n_classes) float32, of a regressor "predictions",
            (B, n_outputs) float64; and "features", (B, p) float32.

        Raises
        ------
        ValueError
            If ONNX Runtime cannot run the graph on them.
        """
        try:
            outputs = self._session.run(None, feeds)
        except Exception as error:  # errors of many types, which share no base
            shapes = {name: values.shape for name, values in feeds.items()}
            raise ValueError(
                f"{self._path} cannot be run on inputs of shapes {shapes}: {str(error).strip()}"
            ) from error
        return dict(zip(self.names, outputs, strict=True))


def _checked(document: str | None, path: str) -> dict[str, Any]:
    try:
        metadata = json.loads(document or "")
        version = metadata["format_version"]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} holds no metadata of sk-aft: expected a file that export_onnx or "
            "save_pretrained has written."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, but this version of sk-aft reads "
            f"{FORMAT_VERSION}: upgrade it with pip install -U sk-aft."
        )
    return metadata
