"""Finds the folder of a student: a directory, or downloaded from the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sk_aft._optional import import_optional

# What a folder of a student holds; nothing else is uploaded or downloaded.
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer*.json",
    "README.md",
    "onnx/model.onnx",
    "onnx/parity.json",
)
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def is_repository(name: str) -> bool:
    """Return whether a name may be that of a repository on the hub: "owner/name"."""
    return _REPOSITORY.fullmatch(name) is not None


def local_folder(
    dir_or_repo: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the directory of a student, which is downloaded first if it is on the hub.

    Parameters
    ----------
    dir_or_repo : str or path-like
        A directory, or "owner/name" on the Hugging Face hub. An existing directory comes first.
    revision : str, optional
        Branch, tag or commit on the hub; default: its branch "main".
    token : str or bool, optional
        Token of the hub for private repositories; default: the one of ``hf auth login``.
    local_files_only : bool, default=False
        Whether to use only what was downloaded before.

    Returns
    -------
    folder : Path
        Holds a config.json.

    Raises
    ------
    ValueError
        If a revision is given with a directory.
    FileNotFoundError
        If there is no such directory or repository, or it holds no student.
    OSError
        If the hub cannot be reached and the student was not downloaded before.
    ImportError
        If it is on the hub and huggingface_hub is not installed.
    """
    given = os.fspath(dir_or_repo)
    path = os.path.expanduser(given)
    if os.path.isdir(path):  # False for "", which Path takes for "."
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} was given, but {given!r} is a directory, which has no "
                "revisions: leave revision out, or give 'owner/name' of the Hugging Face hub."
            )
        return _checked(Path(path), f"The directory {given!r}")
    if os.path.exists(path):
        raise FileNotFoundError(f"{given!r} is a file: give the directory of the student.")
    if not (isinstance(dir_or_repo, str) and is_repository(given)):
        raise FileNotFoundError(
            f"There is no directory {given!r}, and it is not the name of a repository on the "
            "Hugging Face hub, which has the form 'owner/name'."
        )
    folder = _download(given, revision, token, local_files_only)
    return _checked(folder, f"The repository {given!r} of the Hugging Face hub")


def _download(
    repository: str, revision: str | None, token: str | bool | None, local_files_only: bool
) -> Path:
    hub = import_optional("huggingface_hub", extra="hub", purpose="students on the hub")
    errors = import_optional("huggingface_hub.utils", extra="hub", purpose="students on the hub")
    try:
        folder = hub.snapshot_download(
            repository,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=list(FILES),
        )
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"The repository {repository!r} of the Hugging Face hub has no revision {revision!r}: "
            "give one of its branches, tags or commits, or leave revision out."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"There is no directory {repository!r}, and the Hugging Face hub has no such "
            "repository, or it is private. Check the spelling. For a private or gated repository "
            "run 'hf auth login', or pass token= with a token that may read it."
        ) from error
    except Exception as error:  # HTTP libraries have errors of their own
        raise OSError(_not_reached(repository, revision, local_files_only, error)) from error
    return Path(folder)


def _not_reached(
    repository: str, revision: str | None, local_files_only: bool, error: Exception
) -> str:
    """Return a message for a student that is not in the cache, and could not be downloaded."""
    at = "" if revision is None else f" at revision {revision!r}"
    what = f"There is no directory {repository!r}, and the student {repository!r}{at}"
    if local_files_only:
        return (
            f"{what} was not downloaded completely before: with local_files_only=True nothing is "
            "downloaded. Load it once with local_files_only=False, or give a directory."
        )
    reason = (str(error) or repr(error)).splitlines()[0].rstrip(". ")
    return (
        f"{what} could not be downloaded from the Hugging Face hub ({reason}), and was not "
        "downloaded completely before. Check the connection and the variables HF_ENDPOINT and "
        "HF_HUB_OFFLINE (with HF_HUB_OFFLINE=1 nothing is downloaded). On a machine without a "
        "network, copy the folder there and give its directory."
    )


def _checked(folder: Path, what: str) -> Path:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{what} holds no config.json, so it is not a student: expected a folder written by "
            "save_pretrained."
        )
    return folder
