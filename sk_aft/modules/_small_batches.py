"""Batch normalisation where batches or trainings are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# The mean and variance of fewer images say little about those of all images.
SMALL_BATCH = 16


@contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise with the running statistics, which do not change meanwhile.

    Parameters
    ----------
    network : nn.Module
        Its layers of batch normalisation are in evaluation mode within the block.
    """
    layers = [x for x in network.modules() if isinstance(x, _BatchNorm) and x.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@contextmanager
def statistics_of_this_batch(network: nn.Module) -> Iterator[None]:
    """Take all of the statistics of the batch that is normalised within the block.

    Those of the pretrained network belong to other images, and would take as many steps to change
    as a short training has.

    Parameters
    ----------
    network : nn.Module
        The momentum of its batch normalisation is 1 within the block.
    """
    layers = [x for x in network.modules() if isinstance(x, _BatchNorm) and x.training]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
