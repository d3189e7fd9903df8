"""Image models of timm, with their pretrained weights and their own preprocessing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sk_aft._data._resize import height_and_width
from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._fingerprint import directory_digest
from sk_aft.backbones._image import ImageBackbone, as_pil
from sk_aft.backbones._licences import cached_file, licence_of_files, spdx
from sk_aft.backbones._network import Network
from sk_aft.backbones._timm_names import (
    HUB,
    PREFIX,
    TimmModel,
    explained,
    find_timm_model,
    first_line,
    import_timm,
    n_bands_read,
    of_bands,
)
from sk_aft.backbones._without_weights import without_weights

_ARGUMENT = "model"  # which holds the names here
_IMAGES_WORTH_EXPORT = 300  # the export of a larger network takes a few seconds
_SECONDS = 5
# What networks raise on the device "meta" if they look at a number.
NEEDS_NUMBERS = (NotImplementedError, RuntimeError)
# What they raise if they cannot return their maps.
_HAS_NO_MAPS = (AssertionError, AttributeError, LookupError, TypeError, ValueError)


class TimmBackbone(ImageBackbone):
    """An image model of timm; features are the pooled vector that its classifier reads.

    Images are resized, cropped and standardised by timm's transform for evaluation, with the
    model's own data configuration.

    Parameters
    ----------
    name_or_path : str
        Name of a model of timm with pretrained weights, with or without its tag, such as
        "vit_small_patch14_dinov2.lvd142m"; "hf-hub:OWNER/NAME"; or a directory written by
        ``timm.models.save_for_hf``.

    Raises
    ------
    ImportError
        If timm is not installed; it comes with the extra ``timm``. Raised at the first use, as all
        of these.
    OSError
        If files of the model cannot be loaded.
    ValueError
        If the model is unknown, has no pretrained weights or returns no vector of each image.

    Notes
    -----
    Layers are numbered as in timm's ``feature_info``: stages of a convolutional network, the stem
    being the first where timm lists it, and blocks of a transformer, from 0 on. The last of them
    is the model's own output. Features of another layer are the mean over its map, in a
    transformer over the tokens of patches. A model whose maps timm cannot return has no layers.

    With the extra ``onnx``, many images run in ONNX Runtime on a CPU. The features agree to 1e-3.

    Examples
    --------
    >>> from sk_aft.backbones import TimmBackbone
    >>> TimmBackbone("vit_small_patch14_dinov2.lvd142m")
    <TimmBackbone 'vit_small_patch14_dinov2.lvd142m'>
    """

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path.removeprefix(PREFIX)
        self.name = Path(self.name_or_path).name

    @property
    def full_name(self) -> str | None:
        """Directory or repository of the hub; None if the weights are elsewhere, or unknown."""
        try:
            model = self._found()
        except (ImportError, OSError, ValueError):
            return None
        return model.directory or (model.repository or "").partition("@")[0] or None

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies weights, preprocessing and the version of timm's networks."""
        model = self._found()
        return {
            "type": "timm",
            "timm": ".".join(import_timm(_ARGUMENT).__version__.split(".")[:2]),
            **self._identified(model),
            "images": {key: as_json(value) for key, value in self._network().images.items()},
            "dtype": "float32",
        }

    @property
    def licence(self) -> str | None:
        """Licence in the model's configuration, or what its card says."""
        model = self._found()
        named = spdx(model.config.get("license"))
        return named or (licence_of_files(self.full_name) if self.full_name else None)

    @property
    def n_features_out(self) -> int:
        """Width of the pooled vector; the weights are not loaded."""
        return self._network().n_features

    @property
    def n_layers(self) -> int | None:
        """Number of the last of timm's ``feature_info``, None if timm cannot return the others."""
        return len(self._network().widths) or None

    def layer_width(self, layer: int) -> int:
        """Return the number of channels of a layer's map, or of a patch's token."""
        return self._network().widths[layer]

    def load(self, device: torch.device) -> Network:
        """Build the network and load its weights."""
        model = self._found()
        known = self._network()
        try:
            with explained(self._spec, _ARGUMENT):
                network = import_timm(_ARGUMENT).create_model(model.name, pretrained=True)
        except RuntimeError as error:
            raise ValueError(
                f"{self._says} the weights do not fit the network, or are missing "
                f"({first_line(error)}). Expected files written by "
                "timm.models.save_for_hf(model, directory)."
            ) from error
        # Layers are created in torch's default dtype, which may not be float32.
        network = network.float().to(device)
        return Network(
            Pooled(network),
            device,
            n_rows_worth_export=_IMAGES_WORTH_EXPORT,
            select=partial(PooledMaps, network, len(known.widths)),
            n_layers=self.n_layers,
        )

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Make each image as timm does for evaluation."""
        return prepared(self, self._network(), rows, indices)

    @property
    def _spec(self) -> str:
        return PREFIX + self.name_or_path

    @property
    def _says(self) -> str:
        """The beginning of a message."""
        return f"model={self._spec!r}:"

    def _found(self) -> TimmModel:
        """Return what timm knows of the model; raises if it has no weights."""
        is_on_hub = self.name_or_path.startswith(HUB)
        find = _find_on_hub if is_on_hub else partial(find_timm_model, argument=_ARGUMENT)
        model = find(self._spec)
        if model.has_weights:
            return model
        raise ValueError(
            f"{self._says} timm has no pretrained weights of this model, and features of random "
            "ones are worth nothing. Choose one of timm.list_models(pretrained=True); or train it, "
            "save it with timm.models.save_for_hf(model, directory), and use 'timm:DIRECTORY'."
        )

    def _network(self) -> KnownNetwork:
        """Return what is known of the network without its weights."""
        model = self._found()
        changed = Path(model.directory, "config.json").stat().st_mtime_ns if model.directory else 0
        size = None if model.img_size is None else height_and_width(model.img_size)
        return _known_network(self._spec, model.name, size, changed)

    def _identified(self, model: TimmModel) -> dict[str, str]:
        """Return what identifies the weights, which are not downloaded."""
        if model.directory is not None:
            return {"files": directory_digest(model.directory)}
        if model.repository is None:
            return {"name": model.name, "url": str(model.config.get("url"))}
        with explained(self._spec, _ARGUMENT):
            return {"name": model.name, "revision": _revision(model.repository)}


class KnownNetwork(NamedTuple):
    """What is known of a network without its weights.

    Parameters
    ----------
    images : dict
        Arguments of timm's transform.
    n_bands : int
        Number of bands that it reads.
    n_features : int
        Width of its pooled vector.
    widths : tuple of int
        Widths of the layers before the last; empty if timm cannot return them.
    """

    images: dict[str, Any]
    n_bands: int
    n_features: int
    widths: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def _known_network(
    spec: str, name: str, size: tuple[int, int] | None, changed: int
) -> KnownNetwork:
    """Run a network without its weights once.

    Parameters
    ----------
    spec, name : str
        "timm:NAME", and how timm expects the name.
    size : tuple of (height, width) or None
        Size that the network was saved with, which its data configuration may not know.
    changed : int
        When its configuration was, so that another one is read.
    """
    del changed
    try:
        with explained(spec, _ARGUMENT), without_weights():
            network = import_timm(_ARGUMENT).create_model(name, pretrained=False)
        return run_once(spec, network.to("meta"), size)
    except NEEDS_NUMBERS:
        # A few networks compute with their buffers, so they get random weights.
        with explained(spec, _ARGUMENT):
            network = import_timm(_ARGUMENT).create_model(name, pretrained=False)
        return run_once(spec, network.cpu(), size)


def prepared(
    backbone: ImageBackbone, known: KnownNetwork, rows: Rows, indices: Sequence[int]
) -> torch.Tensor:
    """Return some images as timm makes them for evaluation, (n, channels, height, width)."""
    transform = import_timm(_ARGUMENT).data.create_transform(**known.images)
    mode = "L" if known.n_bands == 1 else "RGB"
    images = []
    for row in indices:
        pixels, position = rows.image(row), rows.position(row)
        backbone.check_bands(pixels.shape, position)
        images.append(transform(as_pil(pixels, position).convert(mode)))
    return torch.stack(images)


@torch.inference_mode()
def run_once(spec: str, network: Any, size: tuple[int, int] | None) -> KnownNetwork:
    """Run a network on one image without content, and return what is known of it.

    Parameters
    ----------
    spec : str
        How messages name the model.
    network : torch.nn.Module
        A model of timm, which is changed to float32 and evaluation.
    size : tuple of (height, width) or None
        Size of its images, if it is not that of its data configuration.
    """
    network = network.float().eval()
    images = import_timm(_ARGUMENT).data.resolve_model_data_config(network)
    n_bands, *own_size = images["input_size"]
    if n_bands_read(network) == 1:  # which older versions of timm do not save
        n_bands = 1
    images |= {key: of_bands(images[key], n_bands) for key in ("mean", "std")}
    images["input_size"] = (n_bands, *(size or own_size))
    if n_bands not in (1, 3):
        raise ValueError(
            f"model={spec!r}: the network reads images with {n_bands} bands, expected 1 or 3."
        )
    device = next(network.parameters()).device
    batch = torch.zeros(1, *images["input_size"], device=device, dtype=torch.float32)
    features = Pooled(network)(batch)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = tuple(getattr(features, "shape", ())) or type(features).__name__
        raise ValueError(
            f"model={spec!r}: the network returns {shape} for one image, expected a vector, "
            "(1, n_features). Save it with pooling: timm.create_model(..., global_pool='avg')."
        )
    return KnownNetwork(images, n_bands, features.shape[1], _widths(network, batch))


def _widths(network: Any, batch: torch.Tensor) -> tuple[int, ...]:
    """Return the widths of the layers before the last."""
    n_maps = len(getattr(network, "feature_info", None) or ())
    if n_maps < 2 or not hasattr(network, "forward_intermediates"):
        return ()
    try:
        *maps, _ = map(_n_columns, PooledMaps(network, n_maps - 1, range(n_maps))(batch))
    except (*_HAS_NO_MAPS, *NEEDS_NUMBERS):
        return ()
    return tuple(maps)


def _n_columns(matrix: torch.Tensor) -> int:
    _, n_columns = matrix.shape
    return n_columns


class Pooled(nn.Module):
    """The vector that a model's classifier reads."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n_images, n_features)."""
        return self.network.forward_head(self.network.forward_features(images), pre_logits=True)


class PooledMaps(nn.Module):
    """The means of several layers' maps; the last layer is the pooled vector."""

    def __init__(self, network: Any, n_layers: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.n_layers = n_layers
        self.layers = layers
        # Some networks stop after the last map that is asked for.
        self.maps = sorted({*layers, n_layers})

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (n_images, width) for each layer."""
        last, maps = self.network.forward_intermediates(images, indices=self.maps)
        means = {layer: each.mean(dim=(2, 3)) for layer, each in zip(self.maps, maps, strict=True)}
        means[self.n_layers] = self.network.forward_head(last, pre_logits=True)
        return tuple(means[layer] for layer in self.layers)


@functools.cache  # each time would be a request; errors are not cached
def _find_on_hub(spec: str) -> TimmModel:
    return find_timm_model(spec, _ARGUMENT)


@functools.cache
def _revision(repository: str) -> str:
    """Return the commit on the hub, or without a connection that of the hub's cache.

    Raises
    ------
    OSError
        If there is neither.
    """
    hub = import_optional("huggingface_hub", extra="timm", purpose="models of the hub")
    name, _, revision = repository.partition("@")
    try:
        return str(hub.HfApi().model_info(name, revision=revision or None, timeout=_SECONDS).sha)
    except Exception as error:  # of several libraries, depending on the version
        for file in ("config.json", "model.safetensors"):
            path = cached_file(name, file)
            if path is not None and not revision:
                return path.parent.name  # .../snapshots/COMMIT/config.json
        if isinstance(error, OSError):
            raise
        raise OSError(first_line(error)) from error


def as_json(value: Any) -> Any:
    """Return a list for a tuple."""
    return list(value) if isinstance(value, tuple) else value
