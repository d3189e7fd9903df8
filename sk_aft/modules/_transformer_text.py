"""The first layers of a text encoder, fine-tuned."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_aft.backbones._encoder_layers import (
    TEXT_ENCODERS,
    encoder_files,
    encoder_without_weights,
    load_encoder,
)
from sk_aft.backbones._specs import resolve_backbone
from sk_aft.backbones._tunable import layers_of
from sk_aft.modules._training_defaults import TrainingDefaults


class SavedEncoder(NamedTuple):
    """An encoder whose weights are loaded from a file.

    Parameters
    ----------
    config : dict
        Its configuration, of JSON values.
    """

    config: dict[str, Any]

    def build(self) -> Any:
        """Return the encoder; its tensors are on the device "meta".

        Raises
        ------
        ValueError
            If it is of a type that is not known to be an encoder of texts.
        """
        kind = self.config.get("model_type")
        if not isinstance(kind, str) or kind not in TEXT_ENCODERS:
            raise ValueError(
                f"an encoder of type {kind!r} is not among those that a folder may hold: "
                f"{', '.join(sorted(TEXT_ENCODERS))}"
            )
        return encoder_without_weights(self.config)


class TransformerText(nn.Module):
    """The first layers of a pretrained text encoder, mean pooling and a linear layer.

    Training starts from the weights of the encoder and changes all of them. Each layer reads
    whole texts, so it is slower than networks that add up tokens, and it knows what words mean
    that no training text contains. Dropout in training is that of the encoder's configuration.

    Parameters
    ----------
    encoder : str
        "minilm", "st:NAME", "hf:NAME" (NAME is on the Hugging Face hub, or a directory) or a
        directory. Of a model with encoder and decoder, the encoder is used.
    n_outputs : int
        Number of classes or targets.
    n_layers : int, default=2
        Number of layers kept, from the first on; the embeddings are always kept. Time is
        proportional to it.
    n_frozen_layers : int, default=0
        Number of parts that are not trained: 1 freezes the embeddings, 2 also the first layer.
    head_lr_factor : float or None, default=None
        Learning rate of the head, relative to ``lr``; None is 30, because only the head starts
        from new weights.
    layer_decay : float or None, default=None
        Learning rate of a layer, relative to that of the layer above it; None is 1.
    n_tokens : int or None, default=None
        Number of distinct tokens that the preprocessor may return. It is only compared with the
        encoder's vocabulary.

    Attributes
    ----------
    encoder : transformers.PreTrainedModel
        The layers.
    norm : LayerNorm
        Normalises the mean of a text's last hidden states.
    head : Linear
        From the features to the outputs; its weights start at zero.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Raises
    ------
    ValueError
        If the encoder has fewer layers, no transformer or fewer tokens than the preprocessor.
    OSError
        If it cannot be found.

    Notes
    -----
    Pickles hold the weights and the configuration, and load without the hub or its cache.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import TransformerText
    >>> network = TransformerText("minilm", n_outputs=3, n_layers=2).eval()
    >>> tokens = torch.tensor([[101, 2026, 4003, 102], [101, 102, 0, 0]])  # zeros are padding
    >>> logits, features = network(tokens, lengths=torch.tensor([4, 2]))
    >>> logits.shape, features.shape
    (torch.Size([2, 3]), torch.Size([2, 384]))
    """

    training_defaults = TrainingDefaults(
        lr=1e-4,
        head_lr_factor=30.0,
        weight_decay=0.01,
        warmup=0.1,
        max_gradient_norm=1.0,
        n_steps=300,
        n_epochs=3,
    )

    def __init__(
        self,
        encoder: Any,
        n_outputs: int,
        n_layers: int = 2,
        n_frozen_layers: int = 0,
        head_lr_factor: float | None = None,
        layer_decay: float | None = None,
        n_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.n_frozen_layers = n_frozen_layers
        self.head_lr_factor = head_lr_factor
        self.layer_decay = layer_decay
        if isinstance(encoder, SavedEncoder):
            self.encoder = encoder.build()
        else:
            self.encoder = load_encoder(encoder_files(resolve_backbone(encoder)), n_layers)
        config = self.encoder.config
        if n_tokens is not None and n_tokens > config.vocab_size:
            raise ValueError(
                f"The preprocessor returned the token {n_tokens - 1}, but {encoder!r} knows "
                f"only {config.vocab_size} tokens: use its own tokenizer, preprocessor='auto'."
            )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, n_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def layers(self) -> list[nn.Module]:
        """The embeddings and the layers, in the order in which they run."""
        return layers_of(self.encoder)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of texts.

        Parameters
        ----------
        tokens : Tensor of shape (B, longest), int64
            Tokens of each text, padded at the end with any token.
        lengths : Tensor of shape (B,), int64
            Number of tokens of each text.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on.

        Raises
        ------
        ValueError
            If a text has more tokens than the encoder has positions.
        """
        n_positions = getattr(self.encoder.config, "max_position_embeddings", None)
        if n_positions is not None and tokens.shape[1] > n_positions:
            raise ValueError(
                f"A text has {tokens.shape[1]} tokens, but the encoder reads at most "
                f"{n_positions}: give the preprocessor max_length={n_positions}."
            )
        # Attention to no token at all is NaN, so an empty text is one token of padding.
        lengths = lengths.clamp(min=1).unsqueeze(1)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths
        hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        total = (hidden.float() * mask.unsqueeze(2)).sum(1)
        features = self.norm(total / lengths)
        return self.head(features), features

    def __getstate__(self) -> dict[str, Any]:
        # Objects of transformers differ between its versions, and hold types that skops cannot
        # write.
        modules = {name: part for name, part in self._modules.items() if name != "encoder"}
        tensors = {
            f"{prefix}.{name}": tensor
            for prefix, part in self.encoder.named_modules()
            for name, tensor in (*part._parameters.items(), *part._buffers.items())
        }
        return {
            **vars(self),
            "_modules": modules,
            "_config": self.encoder.config.to_json_string(use_diff=False),
            "_tensors": tensors,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors, modules = state.pop("_tensors"), state.pop("_modules")
        encoder = encoder_without_weights(json.loads(state.pop("_config")))
        for prefix, part in encoder.named_modules():
            for held in (part._parameters, part._buffers):
                held.update({name: tensors[f"{prefix}.{name}"] for name in held})
        super().__setstate__({**state, "_modules": {"encoder": encoder, **modules}})
        encoder.train(self.training)
