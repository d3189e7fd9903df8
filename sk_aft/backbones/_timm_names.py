"""Models of timm by their names: what is known of them, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sk_aft._optional import import_optional

PREFIX = "timm:"
HUB, DIRECTORY = "hf-hub:", "local-dir:"  # of timm itself


class TimmModel(NamedTuple):
    """A model of timm by its name; nothing is built yet.

    Parameters
    ----------
    name : str
        As `timm.create_model` expects it.
    config : dict
        Its ``pretrained_cfg``.
    img_size : int, sequence of int or None
        Size that it was saved with.
    takes_img_size : bool
        Whether it is built for a size.
    has_weights : bool
        Whether there are pretrained weights.
    """

    name: str
    config: dict[str, Any]
    img_size: Any
    takes_img_size: bool
    has_weights: bool

    @property
    def directory(self) -> str | None:
        """The directory that holds the model, None if there is none."""
        is_local = self.name.startswith(DIRECTORY)
        return self.name.removeprefix(DIRECTORY) if is_local else None

    @property
    def repository(self) -> str | None:
        """The repository of the hub that holds the weights, as "OWNER/NAME" or with "@revision"."""
        if self.name.startswith(HUB):
            return self.name.removeprefix(HUB)
        return None if self.directory else self.config.get("hf_hub_id")


def import_timm(argument: str) -> Any:
    """Return timm, for what a user gave as an argument of this name."""
    return import_optional("timm", extra="timm", purpose=f"{argument}='timm:NAME'")


def name_in_timm(spec: str, argument: str) -> str:
    """Return the name of a model as `timm.create_model` expects it.

    Parameters
    ----------
    spec : str
        "timm:NAME".
    argument : {"module", "model"}
        Name of the argument that held the spec, for messages.

    Returns
    -------
    name : str
        A name that timm knows, or a directory or a repository of the hub with timm's prefix.

    Raises
    ------
    ImportError
        If timm is not installed.
    ValueError
        If it is unknown.
    """
    timm, name = import_timm(argument), spec.removeprefix(PREFIX)
    if name.startswith((HUB, DIRECTORY)) or timm.is_model(name.partition(".")[0]):
        return name
    if Path(name).is_dir():
        return DIRECTORY + name
    close = get_close_matches(name, timm.list_models(), n=3)
    hint = f" Did you mean one of {close}?" if close else ""
    raise ValueError(
        f"{argument}={spec!r} is unknown: expected the name of a model of timm (listed by "
        "timm.list_models()), a directory written by timm.models.save_for_hf, or "
        f"'timm:hf-hub:OWNER/NAME'.{hint}"
    )


def find_timm_model(spec: str, argument: str) -> TimmModel:
    """Return what is known of a model; of one on the hub, its configuration is downloaded.

    Parameters
    ----------
    spec, argument : str
        As in `name_in_timm`.

    Returns
    -------
    model : TimmModel
        Name, configuration, and whether there are weights.

    Raises
    ------
    ImportError
        If timm is not installed.
    OSError
        If the configuration cannot be loaded from the hub.
    ValueError
        If the model is unknown, or the directory holds none.
    """
    timm, name = import_timm(argument), name_in_timm(spec, argument)
    if not name.startswith((HUB, DIRECTORY)):
        config = _registered(name, spec, argument)
        is_fixed = config.get("fixed_input_size", False)
        return TimmModel(name, config, None, is_fixed, timm.is_model_pretrained(name))
    if name.startswith(HUB):
        with explained(spec, argument):
            found = timm.models.load_model_config_from_hf(name.removeprefix(HUB))
        config, architecture, arguments = found
    else:
        config, architecture, arguments = _saved(name.removeprefix(DIRECTORY), spec, argument)
    size = (arguments or {}).get("img_size")
    is_fixed = _registered(architecture, spec, argument).get("fixed_input_size", False)
    return TimmModel(name, config, size, is_fixed or size is not None, True)


def _registered(name: str, spec: str, argument: str) -> dict[str, Any]:
    """Return the configuration of a model of timm; empty if it has none."""
    timm = import_timm(argument)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(name.partition(".")[0] + ".*")
        raise ValueError(f"{argument}={spec!r}: {error} Expected one of {known}.") from error
    return {} if config is None else config.to_dict()


def _saved(
    directory: str, spec: str, argument: str
) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """Return configuration, architecture and arguments of a model that timm saved."""
    try:
        saved = json.loads((Path(directory) / "config.json").read_text())
        return saved.get("pretrained_cfg", saved), saved["architecture"], saved.get("model_args")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{argument}={spec!r}: {directory} holds no model of timm ({error!r}). Expected a "
            "directory written by timm.models.save_for_hf(model, directory)."
        ) from error


def n_bands_read(network: nn.Module) -> int:
    """Return the number of bands that a network reads: those of its first convolution."""
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return next((layer.in_channels for layer in convolutions), 3)


def of_bands(values: Sequence[float], n_bands: int) -> Sequence[float]:
    """Return a number for each band: the mean of all if there are others than these."""
    return values if len(values) == n_bands else [sum(values) / len(values)] * n_bands


@contextmanager
def explained(spec: str, argument: str) -> Iterator[None]:
    """Say what to do if files of a model cannot be loaded."""
    try:
        yield
    except OSError as error:
        name, reason = spec.removeprefix(PREFIX), first_line(error)
        is_student = argument == "module"
        instead = "training does not start from" if is_student else "there are no features of"
        or_else = "; or use an instance as module" if is_student else ""
        raise OSError(
            f"The weights of {spec!r} cannot be loaded, and {instead} random "
            f"ones instead ({type(error).__name__}: {reason}). Check the "
            "connection to the Hugging Face hub (with HF_HUB_OFFLINE=1 only its cache is read); "
            "a private or gated model needs 'hf auth login'. For a machine "
            f"without a connection, run timm.create_model({name!r}, pretrained=True) on another "
            "and copy its cache (the directory HF_HOME); or save the model with "
            f"timm.models.save_for_hf and use {argument}='timm:DIRECTORY'{or_else}."
        ) from error


def first_line(error: Exception) -> str:
    """Return the beginning of a message, which may go on for pages."""
    return (str(error) or repr(error)).splitlines()[0].rstrip(". ")
