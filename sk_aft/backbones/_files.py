"""Digests of model files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import xxhash


def directory_digest(directory: str | Path) -> str:
    """Digest the names and contents of all files below a directory, or of one file."""
    root = Path(directory)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    digest = xxhash.xxh3_128()
    for path in files:
        if path.suffix == ".pyc":
            continue
        stat = path.stat()
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        digest.update(name.encode())
        digest.update(_file_digest(str(path), stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, modified: int) -> bytes:
    # Size and time of modification are arguments so that a changed file is read again.
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.digest()
