"""Places processes on the devices of a list in turn, whatever started them."""

from __future__ import annotations

import getpass
import os
import tempfile
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import filelock
import xxhash

from sk_aft._runtime._threads import call_after_fork

_lock = threading.Lock()
# (devices, directory) -> (the device of this process, the lock that it holds until it ends)
_places: dict[tuple[tuple[str, ...], Path], tuple[str, Any]] = {}
# Places of the parent of a forked process. They are not released here, but by the parent.
_of_parent: list[Any] = []


def placed_device(devices: Sequence[str], directory: Path | None = None) -> str:
    """Return the device of this process, which stays the same while the process lives.

    A process takes the first free place. Places are numbered from 0, and place i is on device
    i modulo the number of devices, so processes that run at the same time share the devices
    evenly. A place is a lock of the operating system on a file: it becomes free when its process
    ends, even if it was killed.

    Parameters
    ----------
    devices : sequence of str
        The devices; one that is named twice gets twice as many processes.
    directory : Path, optional
        Processes that give the same directory share the places in it. Default: all processes of
        this user on this machine that give the same devices.

    Returns
    -------
    device : str
        One of the devices.

    Raises
    ------
    PermissionError
        If the directory of the places belongs to another user.
    """
    if len(set(devices)) == 1:
        return devices[0]
    shared = _shared_directory(devices) if directory is None else directory
    key = (tuple(devices), shared)
    with _lock:
        if key not in _places:
            _places[key] = _take_place(devices, shared)
        return _places[key][0]


def _take_place(devices: Sequence[str], directory: Path) -> tuple[str, filelock.BaseFileLock]:
    for number in count():
        place = filelock.FileLock(directory / f"{number}.lock", mode=0o600, thread_local=False)
        try:
            place.acquire(blocking=False)
        except filelock.Timeout:
            continue
        return devices[number % len(devices)], place
    raise AssertionError("unreachable")


def _shared_directory(devices: Sequence[str]) -> Path:
    """Return the directory of the places on some devices, private to the user."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    private = Path(tempfile.gettempdir()) / f"sk_aft-places-{user}"
    private.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and private.lstat().st_uid != os.getuid():
        raise PermissionError(
            f"{private}, where processes note which device each of them uses, belongs to another "
            "user: set the environment variable TMPDIR to a directory of your own."
        )
    # The same name may be another GPU in a process that sees other GPUs.
    names = "\n".join([os.environ.get("CUDA_VISIBLE_DEVICES", ""), *devices])
    directory = private / xxhash.xxh3_64_hexdigest(names.encode())
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.extend(_places.values())
    _places.clear()


call_after_fork(_reset_after_fork)
