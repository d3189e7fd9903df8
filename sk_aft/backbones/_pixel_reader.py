"""How pictures become the input of an ONNX model, by parameters or a preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft.backbones._onnx_graph import Graph

_BILINEAR = 2  # Pillow's number, as in the configurations


@dataclass(frozen=True)
class PixelReader:
    """Turns a picture into the input of a model.

    Parameters
    ----------
    size : tuple of int
        Height and width of the input.
    n_channels : {1, 3}
        Grey or RGB.
    channels_last : bool
        Whether the input is (height, width, channels).
    dtype : str
        Type of the input; uint8 has the pixels as they are.
    resize : tuple of int, int or None
        Height and width to resize to, the length of the shorter side, or None to leave the
        size. A centre crop follows if this is not ``size``.
    resample : int
        Pillow's number of the interpolation.
    scale : float
        Pixels, 0 to 255, are multiplied by this before ``mean`` and ``std``.
    mean, std : tuple of float
        Of each channel.
    """

    size: tuple[int, int]
    n_channels: int
    channels_last: bool
    dtype: str
    resize: tuple[int, int] | int | None
    resample: int = _BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def settings(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values."""
        return json.loads(json.dumps(asdict(self)))

    def __call__(self, image: Any) -> np.ndarray:
        """Return a PIL image as an array of the input's type."""
        image = self._resized(image.convert("L" if self.n_channels == 1 else "RGB"))
        pixels = np.asarray(image).reshape(*self.size, self.n_channels)
        if self.dtype != "uint8":
            mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
            pixels = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        return pixels if self.channels_last else np.ascontiguousarray(np.moveaxis(pixels, 2, 0))

    def _resized(self, image: Any) -> Any:
        target = self.resize
        if isinstance(target, int):
            short = min(image.size)
            width, height = (
                target if side == short else target * side // short for side in image.size
            )
            target = (height, width)
        if target is not None and image.size != target[::-1]:
            image = image.resize(target[::-1], resample=self.resample)
        height, width = self.size
        if image.size == (width, height):
            return image
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def pixel_reader(
    graph: Graph,
    *,
    image_size: int | tuple[int, int] | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
) -> PixelReader:
    """Return how pictures are read by a model with one 4-D input.

    Parameters
    ----------
    graph : Graph
        The model.
    image_size, mean, std
        As in `OnnxBackbone`.

    Returns
    -------
    reader : PixelReader
        Parameters come before a ``preprocessor_config.json`` beside the file or one folder up.

    Raises
    ------
    ValueError
        If the size or the normalisation is not known, or contradicts the model.
    """
    (port,) = graph.inputs
    channels_last = port.shape[1] not in (1, 3) and port.shape[3] in (1, 3)
    n_channels = port.shape[3 if channels_last else 1]
    if n_channels not in (1, 3):
        raise graph.error(
            "reads images, but neither the second nor the last axis of its input has length 1 or "
            "3, the channels: export it with a fixed number of channels."
        )
    height, width = port.shape[1:3] if channels_last else port.shape[2:]
    fixed = (height, width) if height and width else None
    config = _configuration(graph.path)
    size, resize = _sizes(graph, fixed, image_size, config)
    reader = PixelReader(size, n_channels, channels_last, port.dtype, resize)
    if config is not None:
        resample = config.get("resample")  # 0 is the nearest pixel
        reader = replace(reader, resample=_BILINEAR if resample is None else resample)
    if port.dtype == "uint8":
        if mean is not None or std is not None:
            raise graph.error("reads uint8 pixels, so mean and std cannot be used: leave them out.")
        return reader
    return _normalised(graph, reader, mean, std, config)


def _normalised(
    graph: Graph, reader: PixelReader, mean: Any, std: Any, config: dict[str, Any] | None
) -> PixelReader:
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both or neither.")
    if mean is None and config is None:
        raise graph.error(
            "reads floats, and how its images are scaled is not known: give mean and std of "
            "OnnxBackbone, of pixels between 0 and 1 (mean=0, std=1 for no other scaling), or put "
            "the model's preprocessor_config.json beside the file."
        )
    if mean is None:
        assert config is not None
        scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        reader = replace(reader, scale=scale)
        if not config.get("do_normalize", "image_mean" in config):
            return reader
        mean, std = config["image_mean"], config["image_std"]
    means, stds = (tuple(np.ravel(values).astype(float).tolist()) for values in (mean, std))
    for name, values in (("mean", means), ("std", stds)):
        if len(values) not in (1, reader.n_channels) or (name == "std" and min(values) <= 0):
            raise ValueError(
                f"{name} is {list(values)}: expected one number, or {reader.n_channels} for the "
                f"channels of {graph.path!r}{', above 0' if name == 'std' else ''}."
            )
    return replace(reader, mean=means, std=stds)


def _sizes(
    graph: Graph,
    fixed: tuple[int, int] | None,
    image_size: int | tuple[int, int] | None,
    config: dict[str, Any] | None,
) -> tuple[tuple[int, int], Any]:
    """Return the size of the input, and what pictures are resized to before a centre crop."""
    if image_size is not None:
        height, width = np.broadcast_to(np.asarray(image_size), 2).tolist()
        if fixed not in (None, (height, width)):
            raise graph.error(f"reads images of {fixed}, not of image_size={image_size!r}.")
        return (height, width), (height, width)
    if config is not None:
        resize = _size_in(config, "size") if config.get("do_resize", True) else None
        crop = _size_in(config, "crop_size") if config.get("do_center_crop") else None
        crop = (crop, crop) if isinstance(crop, int) else crop
        if crop is None and isinstance(resize, int):
            is_square = not isinstance(config.get("size"), dict)  # as old configurations have it
            resize = (resize, resize) if is_square else resize
        size = crop or (resize if isinstance(resize, tuple) else None)
        if size is not None and fixed in (None, size):
            return size, resize
        if fixed is None or size is not None:
            raise graph.error(
                f"has a preprocessor_config.json that makes images of {size or 'several sizes'}, "
                f"but it reads {fixed or 'any'}: give image_size of OnnxBackbone, and they are "
                "resized to it."
            )
    if fixed is None:
        raise graph.error("reads images of any size: give image_size of OnnxBackbone.")
    return fixed, fixed


def _size_in(config: dict[str, Any], key: str) -> tuple[int, int] | int | None:
    size = config.get(key)
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return (int(size["height"]), int(size["width"]))
    return None if size is None else int(size)


def _configuration(path: str) -> dict[str, Any] | None:
    file = beside(path, "preprocessor_config.json")
    return None if file is None else json.loads(file.read_text("utf-8"))


def beside(path: str, name: str) -> Path | None:
    """Return a file in the folder of a model or one folder up, None if there is none."""
    folder = Path(path).absolute().parent
    found = (candidate / name for candidate in (folder, folder.parent))
    return next((file for file in found if file.is_file()), None)
