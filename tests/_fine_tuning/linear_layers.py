"""A foundation model of numbers that can be fine-tuned in milliseconds."""

import copy

import numpy as np
import torch
from torch import nn

from sk_aft.backbones import Backbone
from sk_aft.backbones._tunable import TunableModel


class LinearLayers(Backbone):
    """Two linear layers on the first column; no such model can be given by name."""

    name = "linear-layers"
    n_features_out = 2
    module = None

    def fingerprint(self):
        return {"type": self.name}

    def tunable_copy(self):
        return copy.copy(self)

    def tunable(self, device):
        return TunableModel(self._loaded(), list(self._loaded()), self._read)

    def embed(self, rows, *, batch_size, device):
        with torch.no_grad():
            return self._loaded()(*self._read(rows)(np.arange(len(rows)))).numpy()

    def _loaded(self):
        if self.module is None:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.module = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2))
        return self.module

    def _read(self, rows):
        numbers = torch.as_tensor(np.asarray(rows.values, dtype=np.float32)[:, :1])
        return lambda indices: (numbers[torch.as_tensor(indices)],)

    def __getstate__(self):
        return {}
