"""What fine-tuning needs of a foundation model: its network, its layers and how it reads rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from sk_aft._data._rows import Rows
from sk_aft.backbones._tokens import InGroupsOfLength, TakeTensors


class TunableModel(NamedTuple):
    """A loaded foundation model whose weights may change.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the tensors of a batch to features (n_rows, n_features). It shares its weights with
        the backbone, whose `embed` returns features of the tuned model afterwards.
    layers : sequence of torch.nn.Module
        From the input to the output. What is in none of them is trained, too.
    read : callable
        Maps rows to a function from the indices of some of them to their tensors.
    n_frozen_layers : int, default=0
        How many of the first layers keep their weights.
    unfreezes : bool, default=False
        Whether training begins with the last layer, and the others join one after the other.
    """

    module: nn.Module
    layers: Sequence[nn.Module]
    read: Callable[[Rows], TakeTensors]
    n_frozen_layers: int = 0
    unfreezes: bool = False


def tunable_encoder(
    module: nn.Module, name: str, read: Callable[[Rows], TakeTensors]
) -> TunableModel:
    """Return a text model that contains a transformer, whose embeddings stay as they are.

    The embeddings of tokens are half of a small model's weights, and few labelled texts hold few
    of the tokens.

    Parameters
    ----------
    module : torch.nn.Module
        Maps tokens to features.
    name : str
        Name of the model, for the error message.
    read : callable
        Maps rows to a function from indices to tokens.

    Returns
    -------
    model : TunableModel
        Its layers are those of the transformer.

    Raises
    ------
    ValueError
        If it contains no transformer.
    """
    layers = layers_of(transformer_of(module, name))
    return TunableModel(InGroupsOfLength(module), layers, read, n_frozen_layers=1)


def transformer_of(module: nn.Module, name: str) -> nn.Module:
    """Return the transformer in a text model; ValueError if there is none."""
    for part in module.modules():
        if hasattr(part, "get_input_embeddings"):
            if any(isinstance(layer, nn.ModuleList) for layer in part.modules()):
                return part
            break
    raise ValueError(
        f"Model {name!r} cannot be fine-tuned: it has no transformer whose layers could be "
        "trained. Use FoundationFeatureExtractor, which takes it as it is."
    )


def layers_of(encoder: nn.Module) -> list[nn.Module]:
    """Return an encoder's layers, from the first to the last, after all that is in none of them.

    The latter are mainly the embeddings. Layers that share their weights are one layer.
    """
    layers = next(part for part in encoder.modules() if isinstance(part, nn.ModuleList))
    inside = set(layers.modules())
    others = [
        part
        for part in encoder.modules()
        if part not in inside and next(part.parameters(recurse=False), None) is not None
    ]
    return [nn.ModuleList(others), *layers]
