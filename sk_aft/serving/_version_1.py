"""Reads configurations of format version 1. Frozen: later versions have readers of their own."""

from __future__ import annotations

import re
from typing import Any

_KINDS = ("text", "image", "numeric", "category", "frame")
_SHA256 = re.compile("[0-9a-f]{64}")
_CLASSES = ("AFTClassifier", "AFTRegressor")


def read_version_1(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration and return it.

    Parameters
    ----------
    config : dict
        The content of config.json. Its entries:

        - "class": "AFTClassifier" or "AFTRegressor".
        - "identity": digest of the network's weights in float32.
        - "parameters", "parameters_left_out": parameters of the estimator, as `Encoder` of
          ``sk_aft._deployment`` describes values, and the names of those that are not saved.
        - "rows": "kind", "n_features_in", "feature_names_in", "columns" and "image_size".
        - "targets": of a classifier "classes" and their "dtype"; of a regressor "n_outputs" and
          "ndim". Mean and scale are the arrays "targets.mean" and "targets.scale".
        - "preprocessor": the fitted preprocessor or None.
        - "inputs": what `StudentInputs` holds besides.
        - "network": "class", "arguments" and "n_weights".
        - "dtype": number format of the weights.
        - "transfer": "method", "beta" and "n_foundation_features".
        - "teachers", "started_from": what is known of the foundation models.
        - "graph": of the ONNX graph "dtype", and whether its rows are "preprocessed"; or None.
        - "measured": score and time on test rows, for the model card; or None.
        - "versions": of the packages that wrote it.
        - "files": "size" and "sha256" of each file.

    Returns
    -------
    config : dict
        The same.

    Raises
    ------
    KeyError, TypeError, ValueError
        If an entry is missing or of another type.
    """
    expected = {
        "class": str,
        "identity": str,
        "parameters": dict,
        "parameters_left_out": list,
        "rows": dict,
        "targets": dict,
        "inputs": dict,
        "network": dict,
        "transfer": dict,
        "versions": dict,
        "files": dict,
    }
    for name, kind in expected.items():
        if not isinstance(config[name], kind):
            raise ValueError(f"{name!r} is a {type(config[name]).__name__}, not a {kind.__name__}")
    if config["class"] not in _CLASSES:
        raise ValueError(f"its class is {config['class']!r}, expected one of {_CLASSES}")
    if config["rows"]["kind"] not in _KINDS:
        raise ValueError(f"its rows are of kind {config['rows']['kind']!r}, which is unknown")
    if not isinstance(config["network"]["class"], str):
        raise ValueError("its network has no name")
    if config["class"] == "AFTClassifier" and len(config["targets"]["classes"]) < 2:
        raise ValueError("it has fewer than two classes")
    for name, file in config["files"].items():
        if type(file["size"]) is not int or not _SHA256.fullmatch(file["sha256"]):
            raise ValueError(f"it has no size and SHA-256 of the file {name!r}")
    return config
