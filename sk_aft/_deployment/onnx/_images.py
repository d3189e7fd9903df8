"""Resizing and cropping of images as operations of ONNX, as in `resize_and_crop`."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from sk_aft._data._pixels import HALF, UNSCALED
from sk_aft._data._resize import ImageGeometry
from sk_aft._deployment.onnx._builder import GraphBuilder
from sk_aft.preprocessing import ImageResizer

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_SIDES = (2, 3)  # axes of the height and the width


def is_read_as_8_bit(resizer: ImageResizer) -> bool:
    """Return whether a fit saw images of 8 bits only."""
    return resizer.float_range_ is None and resizer.whole_range_ != "16 bits"


def resized_images(
    graph: GraphBuilder, resizer: ImageResizer, images: str, is_8_bit: str | None
) -> str:
    """Append what an `ImageResizer` does.

    Parameters
    ----------
    graph : GraphBuilder
        The graph.
    resizer : ImageResizer
        Fitted.
    images : str
        Name of the images (B, height, width, n_channels), uint8 or float32.
    is_8_bit : str, optional
        Name of a bool (B,): which of the images of floats were of 8 bits.

    Returns
    -------
    images : str
        Name of the images (B, n_channels, *size_) float32, 0 to 1 or not scaled.
    """
    planes = graph("Transpose", images, perm=[0, 3, 1, 2])
    if is_read_as_8_bit(resizer):
        levels = graph("Cast", planes, to=TensorProto.FLOAT)
        levels = resized_and_cropped(graph, resizer.geometry_, levels, (0.0, 255.0))
        levels = graph("Floor", graph("Add", levels, np.float32(HALF)))
        return graph("Div", levels, np.float32(255))
    if resizer.float_range_ in UNSCALED:
        return resized_and_cropped(graph, resizer.geometry_, planes, None)
    fractions = resized_and_cropped(graph, resizer.geometry_, planes, (0.0, 1.0))
    levels = graph("Mul", fractions, np.float32(255))
    levels = graph("Floor", graph("Add", levels, np.float32(HALF)))
    rounded = graph("Div", levels, np.float32(255))
    return graph("Where", graph("Reshape", is_8_bit, [-1, 1, 1, 1]), rounded, fractions)


def resized_and_cropped(
    graph: GraphBuilder,
    geometry: ImageGeometry,
    images: str,
    limits: tuple[float, float] | None,
) -> str:
    """Append `resize_and_crop` of images (B, C, height, width) of any size."""
    before = graph("Shape", images)
    kept, height, width = (
        graph("Slice", before, [start], [stop]) for start, stop in ((0, 2), (2, 3), (3, 4))
    )
    after = _sides(graph, geometry, height, width)
    # First the width, then the height: Pillow, too, clamps the numbers in between.
    for sides in ((height, after[1]), after):
        sizes = graph("Concat", kept, *sides, axis=0)
        images = graph(
            "Resize",
            images,
            None,
            None,
            sizes,
            mode=_MODES[geometry.interpolation],
            coordinate_transformation_mode="half_pixel",
            # Where images grow, this changes nothing.
            antialias=1,
            exclude_outside=1,
            cubic_coeff_a=-0.5,
        )
        if limits is not None and geometry.interpolation == "bicubic":
            images = graph("Clip", images, *np.array(limits, dtype=np.float32))
    starts = [
        _start(graph, side, wanted) for side, wanted in zip(after, geometry.size, strict=True)
    ]
    begin = graph("Concat", *starts, axis=0)
    end = graph("Add", begin, np.array(geometry.size))
    return graph("Slice", images, begin, end, list(_SIDES))


def _sides(
    graph: GraphBuilder, geometry: ImageGeometry, height: str, width: str
) -> tuple[str, str]:
    """Append the size before the crop, as in `_resized` of `sk_aft._data._resize`."""
    wanted = [math.floor(side / geometry.crop_fraction) for side in geometry.size]
    if geometry.crop_mode == "squash":
        one, other = (graph("Identity", np.array([side])) for side in wanted)
        return one, other
    if wanted[0] == wanted[1]:
        shorter = graph("Min", height, width)
        one, other = (
            graph("Div", graph("Mul", side, [wanted[0]]), shorter) for side in (height, width)
        )
        return one, other
    sides = [graph("Cast", side, to=TensorProto.DOUBLE) for side in (height, width)]
    ratio = graph(
        "Min", *(graph("Div", side, [float(w)]) for side, w in zip(sides, wanted, strict=True))
    )
    one, other = (
        graph("Cast", graph("Round", graph("Div", side, ratio)), to=TensorProto.INT64)
        for side in sides
    )
    return one, other


def _start(graph: GraphBuilder, side: str, wanted: int) -> str:
    """Append where the middle begins: half of what is left over, rounded to even."""
    left_over = graph("Cast", graph("Sub", side, [wanted]), to=TensorProto.DOUBLE)
    half = graph("Round", graph("Div", left_over, [2.0]))
    return graph("Cast", half, to=TensorProto.INT64)
