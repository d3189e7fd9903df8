"""Whether a device computes with bfloat16 fast enough to measure it."""

from __future__ import annotations

import torch


def lacks_bfloat16(device: str) -> bool:
    """Return whether networks run on a CPU where bfloat16 takes many times as long as float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if not on_cpu or capabilities is None:
        return False
    return not any(has for name, has in capabilities().items() if "bf16" in name)
