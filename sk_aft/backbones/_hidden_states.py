"""Means of a transformer's hidden states over the tokens of each text, in one pass."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_aft._runtime._threads import one_at_a_time
from sk_aft.backbones._base import FeatureShapeError, LayeredModel
from sk_aft.backbones._encoder_files import EncoderSize
from sk_aft.backbones._tunable import transformer_of


class EncoderBackbone(LayeredModel):
    """A text model whose layers are those of a transformer."""

    @property
    @abstractmethod
    def encoder_size(self) -> EncoderSize | None:
        """Number of layers and their width; None without a transformer."""

    @property
    def n_layers(self) -> int | None:
        """Number of the transformer's layers; None without a transformer."""
        size = self.encoder_size
        return None if size is None else size.n_layers

    def layer_width(self, layer: int) -> int:
        """Return the width of the hidden states."""
        del layer  # all layers have the same
        size = self.encoder_size
        assert size is not None
        return size.width


def mean_over_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of hidden states (B, n_tokens, d) over the tokens of a mask, in float32.

    The mean over no token is 0.
    """
    mask = mask.unsqueeze(-1)
    # Where there is no token, hidden states may be NaN.
    hidden = hidden.float().masked_fill(mask == 0, 0)
    return hidden.sum(1) / mask.float().sum(1).clamp(min=1)


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the hidden state of the last token of each text (B, d), in float32; 0 without one."""
    positions = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    index = positions.argmax(dim=1)[:, None, None].expand(-1, 1, hidden.shape[2])
    last = hidden.float().gather(1, index).squeeze(1)
    return last.masked_fill(mask.sum(dim=1, keepdim=True) == 0, 0)


@contextmanager
def outputs_of_layers(
    transformer: Any, layers: Sequence[int]
) -> Iterator[Callable[[Tensor], tuple[Tensor, ...]]]:
    """Record the hidden states of a transformer while this thread runs it.

    Clones share the transformer, so another thread that wants hidden states has to wait.

    Parameters
    ----------
    transformer : transformers.PreTrainedModel
        The transformer.
    layers : sequence of int
        Which layers; 0 are the embeddings.

    Yields
    ------
    outputs : callable
        Called after a batch with the model's own output (B, d), it returns an output for each
        layer: the mean over the tokens, or the model's own of the last layer.
    """
    n_layers = transformer.config.num_hidden_layers
    # Recent versions keep only the states of these layers, others those of all.
    inner = [layer for layer in layers if layer != n_layers]
    thread = threading.get_ident()
    means: dict[int, Tensor] = {}

    def recording(*arguments: Any, **keywords: Any) -> Any:
        if threading.get_ident() != thread:  # another one, which wants the model's own output
            return forward(*arguments, **keywords)
        # sentence-transformers before version 5 asks for a tuple, which does not name its parts.
        wants_tuple = keywords.get("return_dict") is False
        named = {"return_dict": True} if wants_tuple else {}
        output = forward(*arguments, **{**keywords, **named, "output_hidden_states": inner})
        attention_mask = keywords["attention_mask"]
        for layer in inner:
            hidden = output.hidden_states[layer]
            if hidden.shape[:2] != attention_mask.shape:
                raise FeatureShapeError(
                    f"Layer {layer} of {type(transformer).__name__} has hidden states of shape "
                    f"{tuple(hidden.shape)} for tokens of shape {tuple(attention_mask.shape)}: "
                    "expected one for each token. layers=[-1] takes the last layer only."
                )
            means[layer] = mean_over_tokens(hidden, attention_mask)
        return output.to_tuple() if wants_tuple else output

    with one_at_a_time(transformer):
        # Not a hook, because sentence-transformers calls `forward` itself.
        forward = transformer.forward
        own = {"forward": forward} if "forward" in vars(transformer) else {}
        transformer.forward = recording
        try:
            yield lambda last: tuple({**means, n_layers: last}[layer] for layer in layers)
        finally:
            del transformer.forward
            vars(transformer).update(own)


@contextmanager
def without_traces(model: nn.Module) -> Iterator[None]:
    """Remove the attributes and hooks that are added to a user's model in the block.

    To record hidden states, transformers leaves hooks in the layers, and a model with them cannot
    be pickled.
    """
    before = [(part, set(vars(part)), set(part._forward_hooks)) for part in model.modules()]
    try:
        yield
    finally:
        for part, names, hooks in before:
            for name in vars(part).keys() - names:
                delattr(part, name)
            for hook in part._forward_hooks.keys() - hooks:
                del part._forward_hooks[hook]


class TokenLayers(nn.Module):
    """Several layers of a text model that reads tokens; the last is the model's own output.

    Parameters
    ----------
    module : torch.nn.Module
        Maps tokens to the model's own output.
    layers : sequence of int
        Which layers.
    """

    def __init__(self, module: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.module = module
        self.transformer = transformer_of(module, type(module).__name__)
        self.layers = layers

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return (n_texts, width) for each layer."""
        with outputs_of_layers(self.transformer, self.layers) as outputs:
            return outputs(self.module(*inputs))


def encode_layers(
    model: Any, layers: Sequence[int], texts: Sequence[str], **how: Any
) -> np.ndarray:
    """Return several layers of a SentenceTransformer, side by side, by its own ``encode``.

    Parameters
    ----------
    model : SentenceTransformer
        The model.
    layers : sequence of int
        Which layers; empty for the model's own output.
    texts : sequence of str
        What to encode.
    **how
        Parameters of ``encode``.

    Returns
    -------
    features : ndarray of shape (n_texts, n_features), float32
        Of each text.
    """
    with one_at_a_time(model):
        if not layers:
            # As a tensor, features stay on the device until all texts are encoded.
            features = model.encode(list(texts), convert_to_tensor=True, **how)
            return features.float().cpu().numpy()
        return _encode_inner_layers(model, layers, texts, **how)


def _encode_inner_layers(
    model: Any, layers: Sequence[int], texts: Sequence[str], **how: Any
) -> np.ndarray:
    transformer = transformer_of(model, type(model).__name__)
    width, model.truncate_dim = model.truncate_dim, None  # it would truncate all layers
    with outputs_of_layers(transformer, layers) as outputs:

        def widen(_: nn.Module, __: Any, output: dict[str, Tensor]) -> None:
            last = output["sentence_embedding"][:, :width].float()
            output["sentence_embedding"] = torch.cat(outputs(last), dim=1)

        hook = list(model.children())[-1].register_forward_hook(widen)
        try:
            return encode_layers(model, (), texts, **how)
        finally:
            hook.remove()
            model.truncate_dim = width
