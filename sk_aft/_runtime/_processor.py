"""The name of the processor, for figures of speed."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_name() -> str:
    """Return the model of the processor, or its architecture if it is not known."""
    cpuinfo = Path("/proc/cpuinfo")  # of Linux, where platform knows the architecture only
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()
