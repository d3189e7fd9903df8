"""A multilayer perceptron for tables."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sk_aft.modules._training_defaults import TrainingDefaults


class MLP(nn.Module):
    """Linear layers with GELU activations between them.

    Parameters
    ----------
    n_inputs : int
        Number of columns.
    n_outputs : int
        Number of classes or targets.
    hidden_sizes : sequence of int, default=(128,)
        Width of each hidden layer; the last one is the width of the features. One layer overfits
        least where rows or positives are few.
    dropout : float, default=0.0
        Probability of dropping a hidden unit in training.

    Attributes
    ----------
    body : Sequential
        The hidden layers.
    head : Linear
        From the features to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import MLP
    >>> logits, features = MLP(4, 3)(torch.zeros(2, 4))
    >>> logits.shape, features.shape
    (torch.Size([2, 3]), torch.Size([2, 128]))
    """

    # With few rows, passes have few steps and learn too little. benchmarks/defaults.py compares
    # this number with scikit-learn's MLP. Networks for texts and images overfit earlier. A teacher
    # that predicts other rows, too, says more than 1,000 small steps learn; labels alone would be
    # overfitted at this rate.
    training_defaults = TrainingDefaults(n_steps=1000, taught_lr=3e-3)

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_inputs
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), nn.GELU(), nn.Dropout(dropout)]
            width = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, n_outputs) and features (B, hidden_sizes[-1])."""
        features = self.body(inputs)
        return self.head(features), features
