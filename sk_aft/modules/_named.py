"""Networks that start from a foundation model: by its name, or from an instance."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from torch import nn

from sk_aft._data._pixels import RANGES, UNSCALED
from sk_aft._data._resize import ImageGeometry
from sk_aft._data._tensors import InputTensors, are_between_0_and_1
from sk_aft._parameters import reject_unknown
from sk_aft.backbones._efficientnet import EfficientNetLiteBackbone
from sk_aft.backbones._encoder_layers import encoder_files, load_tokenizer_json
from sk_aft.backbones._specs import resolve_backbone
from sk_aft.backbones._timm_names import PREFIX
from sk_aft.modules._efficientnet import EfficientNetLite
from sk_aft.modules._pretrained_image import PretrainedImage, is_pretrained_image
from sk_aft.modules._timm_models import check_timm_name, input_config
from sk_aft.modules._transformer_text import TransformerText
from sk_aft.preprocessing._image import ImageResizer
from sk_aft.preprocessing._subword import SubwordTokenizer

# More tokens cost time, and few texts are longer.
_MOST_TOKENS = 256
_EXPECTED = (
    "expected 'auto'; for texts 'minilm', 'st:NAME' or 'hf:NAME' (NAME is on the Hugging Face hub, "
    "or a directory) or a directory; for images 'effnet-lite0', 'effnet-lite1', 'effnet-lite2' or "
    "'timm:NAME', such as 'timm:resnet18'; or a network: a class, a function or an instance"
)


class NamedNetwork(NamedTuple):
    """What ``module="minilm"``, other names and instances of pretrained models stand for.

    Parameters
    ----------
    name : str
        The name; of an instance, its class.
    build : callable
        Builds it from ``module__x`` and the sizes of its inputs.
    make_preprocessor : callable
        Makes the unfitted preprocessor of ``preprocessor="auto"`` from ``preprocessor__x``.
    kind : {"text", "image"}
        Kind of rows that the network reads.
    """

    name: str
    build: Callable[..., nn.Module]
    make_preprocessor: Callable[..., Any]
    kind: str

    def check_kind(self, kind: str) -> None:
        """Raise if the rows are of another kind."""
        if kind != self.kind:
            is_directory = kind == "image" and os.path.isdir(self.name)
            of_timm = f" A directory of timm is 'timm:{self.name}'." if is_directory else ""
            raise ValueError(
                f"module={self.name!r} reads rows of kind {self.kind!r}, and these are of kind "
                f"{kind!r}: use module='auto', or a network for such rows.{of_timm}"
            )

    def check_inputs(self, preprocessor: Any, tensors: InputTensors, *, is_automatic: bool) -> None:
        """Raise if the preprocessor made something that this network does not read.

        Parameters
        ----------
        preprocessor : estimator or None
            Fitted to the rows; the last step of a pipeline.
        tensors : InputTensors
            What it made of the rows.
        is_automatic : bool
            Whether it was made by `make_preprocessor`.
        """
        if self.kind == "image":
            self._check_pictures(preprocessor, tensors)
        elif not is_automatic:
            self._check_tokens(preprocessor, tensors)

    def _check_pictures(self, preprocessor: Any, tensors: InputTensors) -> None:
        """Raise if images are not between 0 and 1."""
        if isinstance(preprocessor, ImageResizer) and preprocessor.float_range_ in UNSCALED:
            raise ValueError(
                f"module={self.name!r} reads pictures: uint8, or floats between 0 and 1 or 0 and "
                f"255. The images are floats {RANGES[preprocessor.float_range_]}: scale them back "
                "to one of these, or use module=ResNet."
            )
        if not are_between_0_and_1(tensors):
            raise ValueError(
                f"module={self.name!r} standardises images itself: it reads uint8, or floats "
                "between 0 and 1, and the preprocessor returned others. Return such numbers from "
                "it, or use preprocessor='auto'."
            )

    def _check_tokens(self, preprocessor: Any, tensors: InputTensors) -> None:
        if tensors.lengths is None:
            raise ValueError(
                f"module={self.name!r} reads sequences of tokens, and the preprocessor returned "
                "something else: use preprocessor='auto', which is the tokenizer of this model."
            )
        if not isinstance(preprocessor, SubwordTokenizer):
            return
        own = Tokenizer.from_str(self.make_preprocessor().tokenizer)
        if preprocessor.tokenizer_.get_vocab() != own.get_vocab():
            raise ValueError(
                f"The preprocessor's SubwordTokenizer has another vocabulary than {self.name!r}, "
                "whose embeddings its tokens would stand for: use preprocessor='auto', which is "
                "the tokenizer of this model."
            )


def named_network(module: Any, parameters: Mapping[str, Any]) -> NamedNetwork | None:
    """Return what a name or an instance of a pretrained model stands for; nothing is loaded yet.

    Parameters
    ----------
    module : str, type, callable or torch.nn.Module
        The parameter of a student. A name is that of a foundation model, as in
        `FoundationFeatureExtractor`.
    parameters : mapping
        ``module__x`` of the student.

    Returns
    -------
    named : NamedNetwork or None
        Network and preprocessor; None for "auto", and for the user's own network.

    Raises
    ------
    ValueError
        If no network starts from such a model.
    """
    if is_pretrained_image(module):
        return _pretrained_image(type(module).__name__, module, parameters)
    if own := _own_image_network(module):
        return NamedNetwork(own.__name__, module, image_resizer(module, parameters), "image")
    if not isinstance(module, str) or module == "auto":
        return None
    if module.startswith(PREFIX):
        check_timm_name(module)
        return _pretrained_image(module, module, parameters)
    try:
        backbone = resolve_backbone(module)
    except ValueError as error:
        raise ValueError(f"module={module!r} is unknown: {_EXPECTED}. {error}") from error
    if isinstance(backbone, EfficientNetLiteBackbone):
        if "variant" in parameters:
            raise ValueError(
                f"module={module!r} is a variant already: leave module__variant out, or use "
                "module=EfficientNetLite."
            )
        return NamedNetwork(
            module,
            build=partial(EfficientNetLite, variant=backbone.variant),
            make_preprocessor=image_resizer(module, parameters),
            kind="image",
        )
    return NamedNetwork(
        module,
        build=partial(TransformerText, module),
        make_preprocessor=partial(encoder_tokenizer, module),
        kind="text",
    )


def _pretrained_image(name: str, network: Any, parameters: Mapping[str, Any]) -> NamedNetwork:
    return NamedNetwork(
        name,
        build=partial(PretrainedImage, network),
        make_preprocessor=partial(_resizer_of_model, network, parameters.get("image_size")),
        kind="image",
    )


def _resizer_of_model(network: Any, image_size: Any, **parameters: Any) -> ImageResizer:
    """Return the preprocessor of a model's own configuration."""
    return _make_resizer(input_config(network, image_size).geometry, **parameters)


def _make_resizer(geometry: ImageGeometry, **parameters: Any) -> ImageResizer:
    settings = geometry._asdict()
    if "size" in parameters:
        settings["crop_fraction"] = 1.0  # the network crops what is not of its own size
    make = partial(ImageResizer, max_size=settings.pop("size"), **settings)
    reject_unknown("preprocessor", make, parameters)
    return make(**parameters)


def _own_image_network(module: Any) -> type | None:
    """Return the class of a network of this package that resizes images itself."""
    network = getattr(module, "func", module)  # of functools.partial
    kind = network if isinstance(network, type) else type(network)
    return kind if issubclass(kind, (EfficientNetLite, PretrainedImage)) else None


def image_resizer(module: Any, parameters: Mapping[str, Any]) -> Callable[..., ImageResizer]:
    """Return what makes the preprocessor of images for a network.

    Smaller images keep their size, since the network enlarges them itself.

    Parameters
    ----------
    module : str, type, callable or torch.nn.Module
        The parameter of a student.
    parameters : mapping
        ``module__x`` of the student.

    Returns
    -------
    make : callable
        Makes an `ImageResizer` from ``preprocessor__x``.
    """
    own = _own_image_network(module)
    if own is not None and isinstance(module, nn.Module):
        return partial(_make_resizer, module.prepare.geometry)
    given = {**getattr(module, "keywords", {}), **parameters}  # of functools.partial
    if own is not None and issubclass(own, PretrainedImage):
        network = (*getattr(module, "args", ()), given.get("network"))[0]
        return partial(_resizer_of_model, network, given.get("image_size"))
    if (own is None and not isinstance(module, str)) or "image_size" not in given:
        return ImageResizer
    return partial(ImageResizer, max_size=given["image_size"])


def encoder_tokenizer(name: str, max_length: int | None = None) -> SubwordTokenizer:
    """Return the tokenizer of an encoder, by default for texts of at most 256 tokens."""
    document, n_positions = load_tokenizer_json(encoder_files(resolve_backbone(name)))
    if max_length is None:
        max_length = min(n_positions, _MOST_TOKENS)
    elif not 1 <= max_length <= n_positions:
        raise ValueError(
            f"max_length={max_length}, but {name!r} reads at most {n_positions} tokens: expected 1 "
            f"to {n_positions}."
        )
    return SubwordTokenizer(document, max_length=max_length)
