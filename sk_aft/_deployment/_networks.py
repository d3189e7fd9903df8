"""Networks as JSON: the name of a class and the arguments that rebuild it without its weights."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sk_aft._deployment._objects import CannotSaveError, class_path, trusted
from sk_aft._student._components import build_module
from sk_aft.modules import (
    MLP,
    BilinearHead,
    EfficientNetLite,
    MixedNet,
    PretrainedImage,
    ResNet,
    SparseBag,
    StaticText,
    TransformerText,
)
from sk_aft.modules._efficientnet import SavedBody, describe_body
from sk_aft.modules._pretrained_image import SavedModel
from sk_aft.modules._static_text import WeightedBag
from sk_aft.modules._transformer_text import SavedEncoder


def describe_network(
    network: nn.Module, module: Any, parameters: Mapping[str, Any], sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what rebuilds a network, of JSON values.

    Parameters
    ----------
    network : nn.Module
        A trained network.
    module : str, type, callable or nn.Module
        The parameter of the student that it was built from.
    parameters : mapping
        ``module__x`` of the student.
    sizes : mapping
        Sizes of its inputs, and ``n_outputs``.

    Returns
    -------
    description : dict
        "class" and "arguments"; the class of the user's own network is ``module:Class``.

    Raises
    ------
    CannotSaveError
        If it is an instance of the user's own class, whose arguments nobody knows.
    """
    name = type(network).__name__
    if name in NETWORKS and type(network) is NETWORKS[name].cls:
        return {"class": name, "arguments": NETWORKS[name].describe(network)}
    if isinstance(module, (str, nn.Module)) or not hasattr(module, "__qualname__"):
        what = "a partial" if isinstance(module, partial) else f"an instance of {name}"
        raise CannotSaveError(
            f"module is {what}. Pass a class, or a function such as def build(n_inputs, n_outputs) "
            "that returns the network, with its arguments as module__x"
        )
    if "<lambda>" in module.__qualname__:
        raise CannotSaveError("module is a lambda, which has no name: define a class or a function")
    accepted = inspect.signature(module).parameters
    known = {key: value for key, value in sizes.items() if key in accepted}
    arguments = {**known, **parameters}
    try:
        arguments = json.loads(json.dumps(arguments, allow_nan=False, default=_plain_number))
    except (TypeError, ValueError) as error:
        raise CannotSaveError(
            f"the arguments of {name} are not numbers, strings or lists of them ({error})"
        ) from error
    return {"class": class_path(module), "arguments": arguments}


def build_network(
    description: Mapping[str, Any], tensors: Mapping[str, np.ndarray], trust: Collection[Any] = ()
) -> nn.Module:
    """Return a network with its weights.

    Parameters
    ----------
    description : mapping
        From `describe_network`.
    tensors : mapping of str to ndarray
        From `tensors_of`.
    trust : collection of str, type or callable, default=()
        Classes and functions of the user that may be imported.

    Returns
    -------
    network : nn.Module
        In evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If the class is unknown and not trusted, or the weights do not fit.
    """
    name, arguments = description["class"], description["arguments"]
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights draw numbers
            if name in NETWORKS:
                network = _without_weights(NETWORKS[name].build, arguments, len(tensors))
            else:
                build = trusted(name, trust, "The network")
                network = build_module(
                    build, arguments, sizes={}, device=torch.device("cpu"), made_in=torch.float32
                )
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"its network {name} cannot be built ({error})") from error
    set_tensors(network, tensors)
    return network.eval()


def _without_weights(
    build: Callable[..., nn.Module], arguments: Mapping[str, Any], n_tensors: int
) -> nn.Module:
    """Return a network whose tensors have shapes but no memory.

    A configuration of a few bytes may ask for any number of layers. Parts of a network that is
    built may be dropped, such as a decoder, so it may have more parameters than there are tensors.
    """
    here, n_made, n_most = threading.get_ident(), count(1), 10 * n_tensors + 100

    def bound(*_: Any) -> None:
        if threading.get_ident() == here and next(n_made) > n_most:
            raise ValueError(f"it has many more layers than the {n_tensors} weights in the file")

    hook = register_module_parameter_registration_hook(bound)
    try:
        with torch.device("meta"):
            return build(**arguments)
    finally:
        hook.remove()


def tensors_of(network: nn.Module) -> dict[str, np.ndarray]:
    """Return all parameters and buffers of a network as arrays, by their names."""
    return {name: _as_array(tensor) for name, tensor in _named_tensors(network).items()}


def set_tensors(network: nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Set all parameters and buffers of a network; raises ValueError if they do not fit."""
    for prefix, layer in network.named_modules():
        pairs = tensors.get(f"{prefix}.pairs".lstrip("."))
        if isinstance(layer, WeightedBag) and pairs is not None:
            layer.keep_pairs(len(pairs))  # a vocabulary of few pairs has a smaller table
    named = _named_tensors(network)
    if named.keys() != tensors.keys():
        names = sorted(named.keys() ^ tensors.keys())
        raise ValueError(f"its weights do not belong to its network (for example {names[0]!r})")
    for name, tensor in named.items():
        if tuple(tensors[name].shape) != tuple(tensor.shape):
            raise ValueError(
                f"its weights do not belong to its network: {name!r} has the shape "
                f"{tensors[name].shape} instead of {tuple(tensor.shape)}"
            )
    if any(tensor.is_meta for tensor in named.values()):
        network.to_empty(device="cpu")  # now that the sizes are known to be those of the file
    with torch.no_grad():
        for name, tensor in _named_tensors(network).items():
            tensor.copy_(torch.from_numpy(np.array(tensors[name])))


def _named_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _as_array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
        tensor = tensor.float()  # NumPy has no bfloat16
    return tensor.contiguous().numpy()


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):  # a search may set such parameters
        return value.item()
    raise TypeError(f"{type(value).__name__} is not one of these")


class _Network(NamedTuple):
    """How a network of this package is described and rebuilt."""

    cls: type[nn.Module]
    describe: Callable[[Any], dict[str, Any]]
    build: Callable[..., nn.Module]


def _mlp(network: MLP) -> dict[str, Any]:
    hidden = [layer for layer in network.body if isinstance(layer, nn.Linear)]
    return {
        "n_inputs": [*hidden, network.head][0].in_features,
        "n_outputs": network.head.out_features,
        "hidden_sizes": [layer.out_features for layer in hidden],
        "dropout": next((x.p for x in network.body if isinstance(x, nn.Dropout)), 0.0),
    }


def _resnet(network: ResNet) -> dict[str, Any]:
    blocks: Any = list(network.blocks)
    widths = [network.stem[0].out_channels]
    widths += [block.conv1.out_channels for block in blocks if block.conv1.stride != (1, 1)]
    return {
        "n_channels": network.standardise.num_features,
        "n_outputs": network.head.out_features,
        "widths": widths,
        "blocks_per_stage": len(blocks) // len(widths),
        "max_shift": network.augment.max_shift,
        "flip": network.augment.flip,
    }


def _sparse_bag(network: SparseBag) -> dict[str, Any]:
    return {
        "n_tokens": network.embedding.num_embeddings,
        "n_outputs": network.head.out_features,
        "width": network.embedding.embedding_dim,
        "token_dropout": network.token_dropout,
        "dropout": network.dropout.p,
        "sparse": network.sparse,
    }


def _static_text(network: StaticText) -> dict[str, Any]:
    bag, hidden = network.bag, network.hidden
    return {
        "n_tokens": bag.n_tokens,
        "n_outputs": getattr(network.head, "out_features", None),
        "n_vectors": len(bag.weight),
        "width": bag.weight.shape[1],
        "hidden_size": hidden[0].out_features if isinstance(hidden, nn.Sequential) else 0,
        "token_dropout": bag.token_dropout,
        "dropout": network.dropout.p,
        "start": None,
        "sparse": bag.sparse,
        "head_lr_factor": network.head_lr_factor,
        "n_frozen_layers": network.n_frozen_layers,
    }


def _efficientnet(network: EfficientNetLite) -> dict[str, Any]:
    return {
        "variant": network.variant,
        "layers": describe_body(network.body),
        "n_outputs": network.head.out_features,
        "image_size": list(network.prepare.geometry.size),
        "flip": network.flip,
        "min_crop": network.augment.min_crop,
        "n_frozen_layers": network.n_frozen_layers,
        "head_lr_factor": network.head_lr_factor,
        "layer_decay": network.layer_decay,
    }


def _build_efficientnet(variant: int, layers: list, **arguments: Any) -> EfficientNetLite:
    network = EfficientNetLite(variant=SavedBody(variant, layers), **arguments)
    network._has_statistics = True
    return network


def _transformer(network: TransformerText) -> dict[str, Any]:
    return {
        "config": json.loads(network.encoder.config.to_json_string(use_diff=False)),
        "n_outputs": network.head.out_features,
        "n_frozen_layers": network.n_frozen_layers,
        "head_lr_factor": network.head_lr_factor,
        "layer_decay": network.layer_decay,
    }


def _build_transformer(config: dict[str, Any], **arguments: Any) -> TransformerText:
    return TransformerText(SavedEncoder(config), **arguments)


def _pretrained(network: PretrainedImage) -> dict[str, Any]:
    return {
        "model": SavedModel.of(network)._asdict(),
        "n_outputs": network.head.out_features,
        "flip": network.augment.flip,
        "min_crop": network.augment.min_crop,
        "n_frozen_layers": network.n_frozen_layers,
        "head_lr_factor": network.head_lr_factor,
        "layer_decay": network.layer_decay,
    }


def _build_pretrained(model: dict[str, Any], **arguments: Any) -> PretrainedImage:
    with torch.device("cpu"):  # some models of timm compute with tensors while they are built
        return PretrainedImage(SavedModel(**model), **arguments)


def _mixed(network: MixedNet) -> dict[str, Any]:
    is_bilinear = isinstance(network.head, BilinearHead)
    last: Any = network.head.linear if is_bilinear else network.head.head
    parts = zip(network.names, network.branches, strict=True)
    return {
        "parts": [[name, _part_sizes(branch)] for name, branch in parts],
        "n_outputs": last.out_features,
        "head": "bilinear" if is_bilinear else "concatenation",
        "sparse": any(getattr(layer, "sparse", False) for layer in network.branches),
    }


def _part_sizes(branch: Any) -> dict[str, int]:
    if isinstance(branch, StaticText):
        return {"n_tokens": branch.bag.n_tokens}
    if isinstance(branch, SparseBag):
        n_columns = branch.embedding.num_embeddings
        return {"n_tokens": n_columns, "n_inputs": n_columns}
    if isinstance(branch, ResNet):
        return {"n_channels": branch.standardise.num_features}
    return {"n_inputs": branch.body[0].in_features}


def _build_mixed(parts: list, **arguments: Any) -> MixedNet:
    return MixedNet({name: sizes for name, sizes in parts}, start=None, **arguments)


NETWORKS = {
    "MLP": _Network(MLP, _mlp, MLP),
    "ResNet": _Network(ResNet, _resnet, ResNet),
    "SparseBag": _Network(SparseBag, _sparse_bag, SparseBag),
    "StaticText": _Network(StaticText, _static_text, StaticText),
    "EfficientNetLite": _Network(EfficientNetLite, _efficientnet, _build_efficientnet),
    "TransformerText": _Network(TransformerText, _transformer, _build_transformer),
    "PretrainedImage": _Network(PretrainedImage, _pretrained, _build_pretrained),
    "MixedNet": _Network(MixedNet, _mixed, _build_mixed),
}
