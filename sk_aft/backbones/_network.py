"""A torch module that is exported to ONNX Runtime on a CPU once there are enough rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from sk_aft._runtime._half_precision import is_half_precision
from sk_aft._runtime._threads import one_thread
from sk_aft.backbones._batches import run_batches
from sk_aft.backbones._onnx import Inputs, OnnxSession, export_to_onnx


class Network:
    """Runs a module batch by batch, in ONNX Runtime on a CPU or in PyTorch.

    ONNX Runtime is faster on a CPU. It is used if it is installed (the extra ``onnx``) and agrees
    with PyTorch. The export takes a second or two, so a few rows run in PyTorch. The features
    differ only in the last digits, so fingerprints do not depend on which of the two ran.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the tensors of a batch to an (n, d) tensor, or to several, which are put side by side.
    device : torch.device
        Device of the module.
    n_rows_worth_export : int
        Number of rows from which the export saves time.
    varying_axes : tuple of int, default=(0,)
        Axes of the inputs whose length differs between batches; axis 0 is that of the rows.
    select : callable, optional
        Maps numbers of layers to a module that returns these, for `of_layers`.
    n_layers : int, optional
        Number of the last layer, which is what ``module`` returns.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        *,
        n_rows_worth_export: int,
        varying_axes: tuple[int, ...] = (0,),
        select: Callable[[Sequence[int]], nn.Module] | None = None,
        n_layers: int | None = None,
    ) -> None:
        self.module = module.eval()
        self.device = device
        self._session: OnnxSession | None = None
        self._varying_axes = varying_axes
        self._n_rows_before_export = n_rows_worth_export
        self._may_export = device.type == "cpu"
        self._select = select
        self._n_layers = n_layers
        self._of_layers: dict[tuple[int, ...], Network] = {}

    @property
    def session(self) -> OnnxSession | None:
        """What runs in ONNX Runtime; None in PyTorch, which half precision needs."""
        return None if is_half_precision() else self._session

    @session.setter
    def session(self, session: OnnxSession | None) -> None:
        self._session = session

    def of_layers(self, layers: Sequence[int]) -> Network:
        """Return a network of the same weights that returns several layers; itself for none."""
        if not layers:
            return self
        wanted = tuple(layers)
        if wanted not in self._of_layers:
            assert self._select is not None
            self._of_layers[wanted] = Network(
                self._select(wanted),
                self.device,
                n_rows_worth_export=self._n_rows_before_export,
                varying_axes=self._varying_axes,
            )
        return self._of_layers[wanted]

    def export(self, n_rows: int, example: Callable[[], Inputs]) -> None:
        """Announce rows; export the module if the rows so far make that worthwhile.

        Parameters
        ----------
        n_rows : int
            Number of rows that will be run.
        example : callable
            Returns a batch of some of them, on which the export has to agree with PyTorch.
        """
        if is_half_precision():
            return
        if self.session is None:
            self.session = self._session_of_layers()
        self._n_rows_before_export -= n_rows
        if self.session is None and self._may_export and self._n_rows_before_export <= 0:
            self._may_export = False  # one attempt only
            self.session = export_to_onnx(self.module, example(), self._varying_axes)

    def run(self, batches: Iterable[Inputs]) -> Iterator[np.ndarray]:
        """Yield the features of each batch, in order."""
        if self.session is None:
            yield from run_batches(self.module, batches, self.device)
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

    def _session_of_layers(self) -> OnnxSession | None:
        """Return the exported last layer of several, which is what this network returns."""
        for layers, network in self._of_layers.items():
            if network.session is not None and self._n_layers in layers:
                return network.session.only(layers.index(self._n_layers))
        return None
