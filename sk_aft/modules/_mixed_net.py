"""A network for rows with several parts: numbers, texts and images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sk_aft.modules._bilinear_head import BilinearHead
from sk_aft.modules._mlp import MLP
from sk_aft.modules._resnet import ResNet
from sk_aft.modules._sparse_bag import SparseBag
from sk_aft.modules._static_text import StaticText
from sk_aft.modules._training_defaults import TrainingDefaults

# Vectors of all columns of texts: as many as of a `StaticText` by itself.
_N_VECTORS = 16_384
_HEADS = ("auto", "bilinear", "concatenation")


class MixedNet(nn.Module):
    """One small network for each part of the rows, and a head over their features.

    Parameters
    ----------
    parts : mapping of str to mapping of str to int
        Input sizes of each part. A part with only ``n_tokens`` gets a `StaticText`, one with
        ``n_channels`` a `ResNet`, one with only ``n_inputs`` an `MLP`, and sparse rows, which have
        ``n_tokens`` and ``n_inputs``, a `SparseBag`.
    n_outputs : int
        Number of classes or targets.
    head : {"auto", "bilinear", "concatenation"}, default="auto"
        - "bilinear": a `BilinearHead`, for two parts; its products model their interaction.
        - "concatenation": an `MLP` with one hidden layer over the concatenated features.
        - "auto": "bilinear" for two parts of different kinds, else "concatenation".
    start : "auto", "random", str or Backbone, default="auto"
        Where the embeddings of texts start, see `StaticText`.
    sparse : bool, default=False
        See `StaticText`.

    Attributes
    ----------
    names : list of str
        The parts, in the order of the branches.
    branches : ModuleList
        The network of each part, without its head.
    head : BilinearHead or MLP
        From the features of the parts to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import MixedNet
    >>> network = MixedNet({"image": {"n_channels": 3}, "numbers": {"n_inputs": 4}}, n_outputs=2)
    >>> logits, (of_image, of_numbers) = network(
    ...     image=torch.zeros(5, 3, 8, 8), numbers=torch.zeros(5, 4)
    ... )
    >>> logits.shape, of_image.shape, of_numbers.shape
    (torch.Size([5, 2]), torch.Size([5, 64]), torch.Size([5, 128]))
    """

    training_defaults = TrainingDefaults()

    def __init__(
        self,
        parts: Mapping[str, Mapping[str, int]],
        n_outputs: int,
        head: str = "auto",
        start: Any = "auto",
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if head not in _HEADS:
            raise ValueError(f"head={head!r} is unknown, expected one of {_HEADS}.")
        if head == "bilinear" and len(parts) != 2:
            raise ValueError(f"head='bilinear' is for two parts, and there are {list(parts)}.")
        self.names = list(parts)  # of any characters, so no names of submodules
        n_texts = sum(network_for(sizes) is StaticText for sizes in parts.values())
        shared = {"start": start, "sparse": sparse, "n_vectors": _N_VECTORS // max(n_texts, 1)}
        branches = [_build(network_for(sizes), {**sizes, **shared}) for sizes in parts.values()]
        widths = [branch.head.in_features for branch in branches]
        for branch in branches:
            branch.head = nn.Identity()
        self.branches = nn.ModuleList(branches)
        # Products of two texts, or of two images, overfit: either may be noise.
        kinds = {network_for(sizes) for sizes in parts.values()}
        is_pair = len(parts) == 2 and len(kinds) == 2
        self._is_bilinear = head == "bilinear" or (head == "auto" and is_pair)
        self.head: nn.Module
        if self._is_bilinear:
            self.head = BilinearHead(widths[0], widths[1], n_outputs)
        else:
            self.head = MLP(sum(widths), n_outputs, hidden_sizes=(128,))

    def forward(self, **parts: Any) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Return logits (B, n_outputs) and features.

        Parameters
        ----------
        **parts : Tensor or mapping of str to Tensor
            Inputs of each part by its name; a mapping holds the arguments of its network.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : tuple of two Tensor of shape (B, p_part), or Tensor of shape (B, p)
            The features of each part, which a bilinear head multiplies; else those of the row.
        """
        hidden, features = [], []
        for name, branch in zip(self.names, self.branches, strict=True):
            inputs = parts[name]
            # A branch whose head is the identity returns the head's input as its first output.
            outputs = branch(**inputs) if isinstance(inputs, Mapping) else branch(inputs)
            hidden.append(outputs[0])
            features.append(outputs[1])
        if self._is_bilinear:
            return self.head(*hidden), tuple(features)
        return self.head(torch.cat(hidden, dim=1))


def network_for(sizes: Mapping[str, Any]) -> type[nn.Module]:
    """Return the network class for input sizes, as a preprocessor reports them."""
    if "parts" in sizes:
        return MixedNet
    if "n_tokens" in sizes:
        return SparseBag if "n_inputs" in sizes else StaticText
    return ResNet if "n_channels" in sizes else MLP


def _build(network: type[nn.Module], arguments: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(network).parameters
    known = {name: value for name, value in arguments.items() if name in accepted}
    return network(**known, n_outputs=1)
