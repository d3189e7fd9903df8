"""A torch module that is exported to ONNX Runtime on a CPU once there are enough rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from sk_aft._runtime._threads import one_thread
from sk_aft.backbones._onnx import Inputs, OnnxSession, export_to_onnx


class Network:
    """Runs a module batch by batch, in ONNX Runtime on a CPU or in PyTorch.

    ONNX Runtime is faster on a CPU. It is used if it is installed (the extra ``onnx``) and agrees
    with PyTorch. The export takes a second or two, so a few rows run in PyTorch. The features
    differ only in the last digits, so fingerprints do not depend on which of the two ran.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the tensors of a batch to an (n, d) tensor.
    device : torch.device
        Device of the module.
    n_rows_worth_export : int
        Number of rows from which the export saves time.
    varying_axes : tuple of int, default=(0,)
        Axes of the inputs whose length differs between batches; axis 0 is that of the rows.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        *,
        n_rows_worth_export: int,
        varying_axes: tuple[int, ...] = (0,),
    ) -> None:
        self.module = module.eval()
        self.device = device
        self.session: OnnxSession | None = None
        self._varying_axes = varying_axes
        self._n_rows_before_export = n_rows_worth_export
        self._may_export = device.type == "cpu"

    def export(self, n_rows: int, example: Callable[[], Inputs]) -> None:
        """Announce rows; export the module if the rows so far make that worthwhile.

        Parameters
        ----------
        n_rows : int
            Number of rows that will be run.
        example : callable
            Returns a batch of some of them, on which the export has to agree with PyTorch.
        """
        self._n_rows_before_export -= n_rows
        if self._may_export and self._n_rows_before_export <= 0:
            self._may_export = False  # one attempt only
            self.session = export_to_onnx(self.module, example(), self._varying_axes)

    def run(self, batches: Iterable[Inputs]) -> Iterator[np.ndarray]:
        """Yield the features of each batch, in order."""
        if self.session is None:
            yield from map(self._run_in_torch, batches)
            return
        # One thread per batch is faster than all threads on one batch: threads wait less, and the
        # next batches are built meanwhile. The number in flight is bounded, and so is memory.
        in_flight: deque[Future] = deque()
        # PyTorch's own threads busy-wait, which would cost a third of the speed.
        with one_thread() as n_threads, ThreadPoolExecutor(n_threads) as pool:
            for batch in batches:
                in_flight.append(pool.submit(self.session, batch))
                if len(in_flight) > n_threads:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()

    @torch.inference_mode()
    def _run_in_torch(self, batch: Inputs) -> np.ndarray:
        features: Tensor = self.module(*(tensor.to(self.device) for tensor in batch))
        return features.float().cpu().numpy()
