"""Recognises errors of running out of memory."""

from __future__ import annotations

import re

import torch

# CUDA, ROCm and MPS say "out of memory"; then cuBLAS, PyTorch on a CPU (Linux, Windows), NumPy
# and ONNX Runtime.
_MESSAGES = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|not enough memory"
    "|unable to allocate|failed to allocate memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device ran out of memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    of_a_model = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return of_a_model and _MESSAGES.search(str(error)) is not None


def release_memory(device: torch.device) -> None:
    """Free cached memory of the device, whose blocks have the wrong size from now on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
