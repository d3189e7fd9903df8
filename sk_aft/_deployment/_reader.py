"""The folder of a student -> a fitted estimator."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelEncoder, StandardScaler

from sk_aft._deployment._networks import NETWORKS, build_network
from sk_aft._deployment._objects import Decoder, checked_trust, trusted
from sk_aft._runtime._seeds import draw_seed
from sk_aft._student._inputs import StudentInputs
from sk_aft._student._persistence import available_device
from sk_aft._student._schema import RowSchema
from sk_aft._student._state import StudentState
from sk_aft._student._targets import ClassTargets, NumericTargets, Targets
from sk_aft.modules import StaticText
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.serving._folder import StudentFolder, classes_of, explained


def read_student(
    folder: StudentFolder, estimator_class: type, trust: Collection[Any]
) -> tuple[dict[str, Any], StudentState]:
    """Return the parameters and the fitted state of a student.

    Parameters
    ----------
    folder : StudentFolder
        Where it was saved.
    estimator_class : type
        `AFTClassifier`, `AFTRegressor` or a subclass.
    trust : collection of str, type or callable
        The user's own classes and functions that may be imported.

    Returns
    -------
    parameters : dict
        Of the estimator.
    student : StudentState
        What predicts.

    Raises
    ------
    ValueError
        If the folder holds another kind of student, is damaged, or names code that is not trusted.
    TypeError
        If ``trust`` is something else.
    """
    config = folder.config
    if config["class"] not in [base.__name__ for base in estimator_class.__mro__]:
        raise ValueError(
            f"{folder.path} holds an {config['class']}: load it with "
            f"{config['class']}.from_pretrained."
        )
    trust = checked_trust(trust)
    with explained(folder.path):
        return _read(folder, folder.arrays(), trust)


def _read(
    folder: StudentFolder, arrays: dict[str, np.ndarray], trust: Collection[Any]
) -> tuple[dict[str, Any], StudentState]:
    config, decoder = folder.config, Decoder(arrays, folder.text)
    of_parameters = Decoder(arrays, folder.text, allow_classes=True)
    parameters = {k: of_parameters.restore(v) for k, v in config["parameters"].items()}
    name = config["network"]["class"]
    prefix = "network."
    tensors = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    network = build_network(config["network"], tensors, trust)
    targets = _targets(config["targets"], arrays)
    if config["network"]["arguments"].get("n_outputs", targets.n_outputs) != targets.n_outputs:
        raise ValueError("its network has another number of outputs than there are targets")
    if name not in NETWORKS:
        parameters["module"] = trusted(name, trust, "The network")
    _warn_of_defaults(config["parameters_left_out"], parameters)
    rows, transfer = config["rows"], config["transfer"]
    names = rows["feature_names_in"]
    schema = RowSchema(
        rows["kind"],
        rows["n_features_in"],
        None if names is None else np.array(names, dtype=object),
        decoder.restore(rows["columns"]),
    )
    preprocessor = decoder.restore(config["preprocessor"])
    _check_tokens(network, preprocessor)
    if str(parameters.get("device")).startswith("meta"):
        raise ValueError("its device is 'meta', which computes nothing")
    device = available_device(parameters.get("device", "auto"))
    method = transfer["method"]
    student = StudentState(
        schema=schema,
        targets=targets,
        inputs=StudentInputs(preprocessor, schema, **config["inputs"]),
        device=device,
        random=np.random.RandomState(draw_seed(parameters.get("random_state"))),
        split_seed=None,
        transfer_method=[tuple(one) for one in method] if isinstance(method, list) else method,
        beta=transfer["beta"],
        n_foundation_features=transfer["n_foundation_features"],
        module=network.to(device),
        teachers=config["teachers"],
        started_from=config["started_from"],
    )
    return parameters, student


def _check_tokens(network: Any, preprocessor: Any) -> None:
    is_static = isinstance(network, StaticText) and isinstance(preprocessor, SubwordTokenizer)
    if is_static and preprocessor._encoder.n_ids > network.bag.n_tokens:
        raise ValueError("its tokenizer has more tokens than there are vectors")


def _warn_of_defaults(left_out: list[str], parameters: dict[str, Any]) -> None:
    unknown = [name for name in left_out if name not in parameters]
    if unknown:
        warnings.warn(
            f"The folder does not hold the parameters {unknown}, which have their defaults now. "
            "Predictions do not depend on them; set them before the next fit.",
            stacklevel=5,
        )


def _targets(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> Targets:
    encoder, scaler = LabelEncoder(), StandardScaler()
    if "classes" in described:
        encoder.classes_ = classes_of(described)
        return ClassTargets(encoder)
    scaler.mean_, scaler.scale_ = arrays["targets.mean"], arrays["targets.scale"]
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_ = described["n_outputs"]
    if not scaler.mean_.shape == scaler.scale_.shape == (scaler.n_features_in_,):
        raise ValueError("it has another number of targets than their scales")
    return NumericTargets(scaler, described["ndim"])
