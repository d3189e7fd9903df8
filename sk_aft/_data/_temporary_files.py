"""A file of rows in the directory of temporary files."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any


class TemporaryFile:
    """A file of rows that is removed with the last object that refers to it.

    Those of processes that were killed are removed with the next one that is made.
    """

    def __init__(self) -> None:
        host = re.sub(r"\W", "-", platform.node())  # processes of others may share the directory
        prefix = f"sk_aft_rows_{host}_"
        _remove_of_dead_processes(Path(tempfile.gettempdir()), prefix)
        directory = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}_")
        self.path = str(Path(directory, "rows.arrow"))
        weakref.finalize(self, _remove, directory, os.getpid())

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy in another process does not remove it

    def __deepcopy__(self, memo: Any) -> TemporaryFile:
        return self


def _remove(directory: str, creator: int) -> None:
    if os.getpid() == creator:  # and not a copy of the process
        shutil.rmtree(directory, ignore_errors=True)


def _remove_of_dead_processes(parent: Path, prefix: str) -> None:
    if os.name != "posix":
        return
    for directory in parent.glob(f"{glob.escape(prefix)}*"):
        creator = directory.name.removeprefix(prefix).split("_")[0]
        with suppress(OSError):  # another process has removed it
            is_own = directory.stat().st_uid == os.getuid()
            if is_own and creator.isdecimal() and not _is_alive(int(creator)):
                shutil.rmtree(directory, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
