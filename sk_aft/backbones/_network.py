"""A torch module that goes over to ONNX Runtime on a CPU once there are rows enough."""

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
    """Runs a module batch by batch, by whatever is fastest here.

    On a CPU that is ONNX Runtime, where it is installed (the extra ``onnx``) and agrees with
    PyTorch. The export takes a second or two, so a handful of rows run in PyTorch. Features
    differ in the last digits only, so nothing else depends on which one ran.

    Parameters
    ----------
    module : torch.nn.Module
        Takes the tensors of a batch, returns an (n, d) tensor.
    device : torch.device
        Where it is.
    n_rows_worth_export : int
        Rows after which the export has paid for itself.
    varying_axes : tuple of int, default=(0,)
        Axes of the inputs whose length differs from batch to batch; the first one is the rows.
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
        """Note that rows are coming, and export the module if it is worth it by now.

        Parameters
        ----------
        n_rows : int
            How many rows.
        example : callable
            Makes a batch of some of them, on which the export has to agree with PyTorch.
        """
        self._n_rows_before_export -= n_rows
        if self._may_export and self._n_rows_before_export <= 0:
            self._may_export = False  # tried once
            self.session = export_to_onnx(self.module, example(), self._varying_axes)

    def run(self, batches: Iterable[Inputs]) -> Iterator[np.ndarray]:
        """Yield the features of each batch, in order."""
        if self.session is None:
            yield from map(self._run_in_torch, batches)
            return
        # One thread a batch waits less than all threads on one batch, and the next batches are
        # made meanwhile. Few are in flight, so that memory does not grow with the rows.
        in_flight: deque[Future] = deque()
        # PyTorch's own threads, waiting actively, would take a third of the speed.
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
