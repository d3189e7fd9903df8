"""Uploads the folder of a student to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sk_aft._optional import import_optional
from sk_aft.serving._hub import FILES, is_repository


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
) -> str:
    """Upload the folder of a student; the repository and the branch are created if necessary.

    Parameters
    ----------
    folder : Path
        Written by ``save_pretrained``. Only the files of a student are uploaded.
    repo_id : str
        "owner/name".
    private : bool, optional
        Whether a new repository is private; default: that of the owner, usually public.
    commit_message : str, optional
        Message of the commit; default: "Upload a student of sk-aft".
    token : str or bool, optional
        Token of the hub that may write; default: the one of ``hf auth login``.
    revision : str, optional
        Branch to upload to; default: "main".

    Returns
    -------
    url : str
        The address of the commit.

    Raises
    ------
    ValueError
        If ``repo_id`` is not of the form "owner/name".
    PermissionError
        If the token is missing, or may not write to the repository.
    OSError
        If the hub cannot be reached, or refuses the files.
    ImportError
        If huggingface_hub is not installed.
    """
    if not is_repository(repo_id):
        raise ValueError(
            f"repo_id={repo_id!r}: expected the form 'owner/name', with your name on the Hugging "
            "Face hub or that of an organisation as owner."
        )
    hub = import_optional("huggingface_hub", extra="hub", purpose="push_to_hub")
    errors = import_optional("huggingface_hub.utils", extra="hub", purpose="push_to_hub")
    api = hub.HfApi(token=token, library_name="sk-aft")
    try:
        # Older versions send None as a value.
        visibility = {} if private is None else {"private": private}
        api.create_repo(repo_id, exist_ok=True, **visibility)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            commit_message=commit_message or "Upload a student of sk-aft",
            revision=revision,
            allow_patterns=list(FILES),
            delete_patterns=["onnx/*", "tokenizer*.json"],  # of a former student
        )
    except errors.HfHubHTTPError as error:
        if _status(error) not in (401, 403):
            raise
        raise PermissionError(
            f"The Hugging Face hub does not let you write to {repo_id!r}: run 'hf auth login', or "
            "pass token=, with a token that may write (from https://huggingface.co/settings/"
            f"tokens), and check that {repo_id.partition('/')[0]!r} is you or an organisation of "
            "yours."
        ) from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # HTTP libraries have errors of their own
        raise ConnectionError(
            f"{repo_id!r} could not be uploaded to the Hugging Face hub ({error}): check the "
            "connection and the variable HF_ENDPOINT."
        ) from error
    return str(commit.commit_url)


def _status(error: Any) -> int | None:
    return getattr(error.response, "status_code", None)
