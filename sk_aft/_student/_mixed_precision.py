"""Training with 16-bit numbers where they are precise enough."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sk_aft._runtime._half_precision import has_bfloat16

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PRECISIONS = {"float32", *_DTYPES}


class MixedPrecision:
    """Runs the network and the optimizer's steps in one of the precisions.

    Weights, their updates, losses and transfer objectives are always in float32. In "16-mixed",
    gradients are scaled by a large factor, because float16 would round small ones to zero, and
    unscaled before the weights change.

    Parameters
    ----------
    precision : {"float32", "bf16-mixed", "16-mixed"}
        The estimator's parameter.
    device : torch.device
        Where the network is.
    optimizer : torch.optim.Optimizer
        Its optimizer.
    """

    def __init__(self, precision: str, device: torch.device, optimizer: Any) -> None:
        self._dtype = _DTYPES.get(precision)
        self._device = device.type
        self._scaler: Any = None
        if precision == "bf16-mixed" and not has_bfloat16(device):
            warnings.warn(
                "This CPU has no instructions for bfloat16: precision='bf16-mixed' takes many "
                "times as long as 'float32' here.",
                stacklevel=2,
            )
        if precision == "16-mixed":
            closure = inspect.signature(optimizer.step).parameters.get("closure")
            if closure is not None and closure.default is closure.empty:
                raise ValueError(
                    f"precision='16-mixed' does not work with {type(optimizer).__name__}, which "
                    "computes several losses per step: use 'bf16-mixed' or 'float32'."
                )
            self._scaler = torch.amp.GradScaler(self._device)

    def keep(self, former: MixedPrecision) -> None:
        """Keep the gradient scale that a former training found."""
        if self._scaler is not None and former._scaler is not None:
            self._scaler = former._scaler

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Suppress torch's warning about the order of steps when the optimizer skips one."""
        if self._scaler is None:
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            yield

    def autocast(self) -> AbstractContextManager:
        """Return the context to run the network in."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self._dtype)

    def restored(self, outputs: Tensor) -> Tensor:
        """Convert outputs that were computed in 16 bits to float32."""
        return outputs if self._dtype is None else outputs.float()

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def unscale(self, optimizer: Any) -> None:
        """Undo the scaling of the gradients before callbacks read them."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: Any, loss_and_gradients: Callable[[], Tensor]) -> None:
        """Let the optimizer step; the step is skipped if gradients became infinite."""
        if self._scaler is None:
            optimizer.step(loss_and_gradients)
            return
        loss_and_gradients()
        self._scaler.step(optimizer)
        self._scaler.update()
