"""Vision models of the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._base import FeatureShapeError
from sk_aft.backbones._encoder_files import import_transformers
from sk_aft.backbones._hugging_face import (
    check_has_no_prefix,
    load_config,
    load_model,
    load_part,
    quiet_loading,
    resolved_revision,
)
from sk_aft.backbones._image import ImageBackbone, pil_image
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._network import Network

_FILES = ("preprocessor_config.json", "processor_config.json")  # of image processors
_POOLINGS = ("auto", "cls", "mean")
# Parameters that are put before the tokens of the patches.
_TOKENS_BEFORE_PATCHES = (
    "cls_token",
    "class_token",
    "class_embedding",
    "distillation_token",
    "register_tokens",
)


class VisionModel(ImageBackbone):
    """A vision model of transformers, whose widths are known without running it."""

    # Width of the features, and those of the hidden states.
    _widths: Any

    @property
    def n_features_out(self) -> int | None:
        """Width of the features, None if it is known only when the model runs."""
        return self._widths[0]

    @property
    def n_layers(self) -> int | None:
        """Number of layers or stages; None if the model returns no hidden states."""
        return len(self._widths[1]) - 1 if self._widths[1] else None

    def layer_width(self, layer: int) -> int:
        """Return the width of the hidden states after a layer or stage."""
        return self._widths[1][layer]


class HuggingFaceImageBackbone(VisionModel):
    """A vision model loaded with transformers, such as ViT, DINOv2, SigLIP or ConvNeXt.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded at the first use, then cached by huggingface_hub) or a
        directory with the model's files.
    pooling : {"auto", "cls", "mean"}, default="auto"
        How the last hidden states become one vector.

        - "auto": the model's own pooling if it was trained or has no weights (CLIP, SigLIP,
          ConvNeXt, ResNet, Swin), else the CLS token (ViT, DINO), else the mean.
        - "cls": the CLS token.
        - "mean": the mean over the patches, without CLS and register tokens, or over the map.

    Raises
    ------
    ValueError
        If there is no such pooling.

    Notes
    -----
    Images are prepared by the model's own image processor, with Pillow where transformers can.
    Some processors, such as DINOv3's, need torchvision.

    Layers are the hidden states that transformers returns: 0 are the embeddings, and k is the
    output of the k-th layer or, in models with stages, of the k-th stage. Features of a layer are
    the mean over the patches or the map.
    """

    def __init__(self, name_or_path: str, *, pooling: str = "auto") -> None:
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling={pooling!r}: expected one of {', '.join(_POOLINGS)}.")
        check_has_no_prefix(name_or_path, type(self).__name__)
        self.name_or_path = name_or_path
        self.pooling = pooling
        self.name = Path(name_or_path).name

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files, and the pooling."""
        return {
            "type": "transformers images",
            **resolved_revision(self.name_or_path),
            "pooling": self.pooling,
            "dtype": "float32",
        }

    @property
    def licence(self) -> str | None:
        """What the model card says."""
        return licence_of_files(self.name_or_path)

    @cached_property
    def _widths(self) -> tuple[int | None, tuple[int, ...]]:
        """Widths of the features and of the hidden states, from the configuration alone."""
        return widths_of(load_config(self.name_or_path), self.pooling, self.name)

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if images cannot be read, or the image processor needs another package."""
        super().check_rows(rows, names)
        check_reads_pixels(load_image_processor(self.name_or_path), self.name)

    def load(self, device: torch.device) -> Network:
        """Load the model and its image processor."""
        self._processor = load_image_processor(self.name_or_path)
        model = load_vision_model(self.name_or_path)
        return image_network(model.to(device), device, self.pooling)

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> Tensor:
        """Prepare images with the model's processor."""
        return processed(self._processor, rows, indices)["pixel_values"]

    def unload(self) -> None:
        """Free the model's memory."""
        super().unload()
        vars(self).pop("_processor", None)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_processor"}


class PooledImages(nn.Module):
    """A vision model that returns one vector for each image.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Returns the last hidden states: tokens (n, n_tokens, d) or maps (n, d, height, width).
    pooling : {"auto", "cls", "mean"}
        See `HuggingFaceImageBackbone`.
    layers : sequence of int, default=()
        Which layers to return instead; the last is the pooled output.
    """

    def __init__(self, model: Any, pooling: str, layers: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.layers = layers
        self.n_before_patches = n_tokens_before_patches(model)
        self.has_own_pooler = not has_dense_pooler(model)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return (n_images, n_features), or one of these for each layer."""
        if not self.layers:
            return self.pooled(self.model(pixel_values=images, return_dict=True))
        output = self.model(pixel_values=images, output_hidden_states=True, return_dict=True)
        n_layers = len(output.hidden_states) - 1
        return tuple(
            self.pooled(output)
            if layer == n_layers
            else self.mean_over_patches(output.hidden_states[layer])
            for layer in self.layers
        )

    def pooled(self, output: Any) -> Tensor:
        """Return one vector for each image, (n_images, d).

        Raises
        ------
        FeatureShapeError
            If the model's output has nothing to pool.
        ValueError
            If there is no CLS token to use.
        """
        own = getattr(output, "pooler_output", None)
        hidden = getattr(output, "last_hidden_state", None)
        if self.pooling == "auto" and self.has_own_pooler and own is not None:
            return own.flatten(1)
        name = type(self.model).__name__
        if hidden is None:
            raise FeatureShapeError(
                f"{name} returns no hidden states that could be pooled to one vector per image: "
                f"its output has {', '.join(output.keys())}. Give a function that computes "
                "features as the model."
            )
        has_cls = hidden.ndim == 3 and self.n_before_patches > 0
        if self.pooling == "cls" and not has_cls:
            raise ValueError(f"{name} has no CLS token: use pooling='auto' or 'mean'.")
        if self.pooling != "mean" and has_cls:
            return hidden[:, 0]
        return self.mean_over_patches(hidden)

    def mean_over_patches(self, hidden: Tensor) -> Tensor:
        """Return the mean of tokens (n, n_tokens, d) or of maps (n, d, height, width)."""
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        return hidden[:, self.n_before_patches :].mean(dim=1)


def load_vision_model(name_or_path: str) -> Any:
    """Load a vision model; see `load_model`."""
    model = load_model(name_or_path, unused=("pooler.dense.",))
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0  # else masked autoencoders read random patches
    return model


def has_dense_pooler(model: Any) -> bool:
    """Return whether a dense layer follows the CLS token: trained for a task, or not at all."""
    return hasattr(getattr(model, "pooler", None), "dense")


def image_network(model: Any, device: torch.device, pooling: str) -> Network:
    """Return a network of a vision model, which runs in PyTorch."""
    return Network(
        PooledImages(model, pooling),
        device,
        n_rows_worth_export=sys.maxsize,
        select=partial(PooledImages, model, pooling),
    )


def n_tokens_before_patches(model: Any) -> int:
    """Return how many CLS and register tokens precede the patches."""
    named = {name.rpartition(".")[2]: weight for name, weight in model.named_parameters()}
    found = [named[name] for name in _TOKENS_BEFORE_PATCHES if name in named]
    return sum(1 if weight.ndim == 1 else weight.shape[-2] for weight in found)


def widths_of(config: Any, pooling: str, name: str) -> tuple[int | None, tuple[int, ...]]:
    """Return the width of a vision model's features and of its hidden states.

    The model is built and run without weights and numbers, which takes a fraction of a second.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Its configuration.
    pooling : {"auto", "cls", "mean"}
        See `HuggingFaceImageBackbone`.
    name : str
        Its name, for the error message.

    Returns
    -------
    width : int or None
        Of the features; None if only the real model tells.
    widths : tuple of int
        Of the hidden states; empty if there are none, or only the real model tells.

    Raises
    ------
    ValueError
        If the model cannot be pooled in this way.
    """
    transformers = import_transformers()
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    try:
        with torch.device("meta"), torch.inference_mode():
            model = transformers.AutoModel.from_config(config, dtype=torch.float32)
            module = PooledImages(model.eval(), pooling)
            images = torch.empty(1, getattr(config, "num_channels", 3), height, width)
            output = model(pixel_values=images, output_hidden_states=True, return_dict=True)
            features = module.pooled(output)
            states = [module.mean_over_patches(state) for state in output.hidden_states or ()]
    except RuntimeError:  # it looks at numbers
        return None, ()
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot use the foundation model {name!r}: {error}") from error
    return features.shape[1], tuple(state.shape[1] for state in states)


def processed(processor: Any, rows: Rows, indices: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors that an image processor makes of some images, by name."""
    images = [pil_image(rows, row).convert("RGB") for row in indices]
    tensors = processor(images=images, return_tensors="pt")
    return {name: tensors[name] for name in processor.model_input_names if name in tensors}


def check_reads_pixels(processor: Any, name: str) -> None:
    """Raise ValueError if an image processor returns more than the pixels of whole images."""
    if "spatial_shapes" in processor.model_input_names:
        raise ValueError(
            f"The vision model {name!r} reads patches of images in their own proportions "
            f"({type(processor).__name__}), which only the whole model of images and texts "
            "supports: give that, or one for a fixed image size."
        )


def load_image_processor(name_or_path: str) -> Any:
    """Load the image processor of a directory or a name on the hub, with Pillow if possible.

    Raises
    ------
    ImportError
        If it needs a package that is not installed.
    OSError
        If the hub does not provide it.
    ValueError
        If the directory has none.
    """
    import_optional("PIL.Image", extra="vision", purpose="reading images")
    auto = import_transformers().AutoImageProcessor
    has_backends = find_spec("transformers.image_processing_backends") is not None
    with_pillow = {"backend": "pil"} if has_backends else {"use_fast": False}
    try:
        with quiet_loading(reports=False):
            return load_part(auto, name_or_path, **with_pillow)
    except (ImportError, OSError, ValueError) as error:
        directory = Path(name_or_path)
        if directory.is_dir() and not any((directory / file).exists() for file in _FILES):
            raise ValueError(
                f"{name_or_path!r} has no image processor, so images cannot be read: save the "
                "model's image processor to the directory, with "
                "image_processor.save_pretrained(DIRECTORY)."
            ) from error
        if isinstance(error, OSError):
            raise
        if find_spec("torchvision") is not None and not isinstance(error, ImportError):
            return load_part(auto, name_or_path)
        raise ImportError(
            f"The image processor of {name_or_path!r} runs with torchvision only: "
            "pip install torchvision (the build that fits your torch)."
        ) from error
