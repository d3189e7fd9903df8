"""Loading models of the Hugging Face hub, with one request to find out whether a name exists."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sk_aft._optional import import_optional

_SECONDS = 5


def load_from_hub(name_or_path: str, load: Callable[..., Any]) -> Any:
    """Call ``load(local_files_only=...)``, with the hub if it has the model, else with local files.

    The libraries request several files from the hub and retry each for half a minute, so the name
    is checked here first.

    Parameters
    ----------
    name_or_path : str
        Name on the hub, or a directory.
    load : callable
        Loads the model, its tokenizer or its configuration.

    Returns
    -------
    loaded : object
        What ``load`` returns.

    Raises
    ------
    OSError
        If there is no such directory, the hub does not provide the model, and it was not
        downloaded before. If the licence of the model has to be accepted first, the message says
        so.
    """
    if Path(name_or_path).is_dir():
        return load(local_files_only=False)  # an adapter's base model may be on the hub
    is_gated = False
    try:
        _ask_hub(name_or_path)
    except ImportError:
        raise
    except Exception as error:
        is_gated = _is_about_gate(error)
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(". ")
    else:
        try:
            return load(local_files_only=False)
        except OSError as error:
            if not _is_about_gate(error):
                raise
            raise _gated(name_or_path) from error
    try:
        return load(local_files_only=True)
    except OSError:
        if is_gated:
            raise _gated(name_or_path) from None
        raise OSError(
            f"Cannot find the foundation model {name_or_path!r}: it is not a directory, it was not "
            f"downloaded before, and the Hugging Face hub does not have it ({reason}). Check the "
            "spelling and the connection; a private model needs 'hf auth login'. Without a "
            "network, give a directory with the model's files, or use 'minilm'."
        ) from None


def _is_about_gate(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, is that the hub wants a licence accepted."""
    while error is not None:
        if type(error).__name__ == "GatedRepoError":  # by name, to avoid importing the package
            return True
        error = error.__cause__ or error.__context__
    return False


def _gated(name: str) -> OSError:
    return OSError(
        f"The foundation model {name!r} is gated: accept its licence on its page, "
        f"https://huggingface.co/{name}, with your account, and log in on this machine with "
        "'hf auth login' (or set HF_TOKEN)."
    )


@functools.cache  # errors are not cached
def _ask_hub(name: str) -> None:
    hub = import_optional("huggingface_hub", extra="text", purpose="models of the hub")
    hub.HfApi().model_info(name, timeout=_SECONDS)
