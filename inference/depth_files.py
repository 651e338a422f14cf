"""Depth of a clip as files: `.npy` or 16-bit PNG, and the JSON beside them that says what the numbers mean."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from path import Path
from PIL import Image

from datasets.layout import write_depth
from files.atomic import write_bytes
from files.images import resize_area

FORMATS = ("npy", "png")
KITTI_FACTOR = 256.0  # of KITTI's depth maps: number = 256 x metres
_LARGEST = 65535  # number of 16 bits


@dataclass(frozen=True)
class DepthForm:
    """How depth is stored: value = depth x factor; 0 = unknown."""

    suffix: str  # one of FORMATS
    factor: float
    size: tuple[int, int]  # (height, width) of the files


def depth_form(suffix: str, metric: bool, farthest: float, size: tuple[int, int]) -> DepthForm:
    """The form of a clip's depth files.

    `.npy` holds the depth itself. PNG in metres is KITTI's, 256 x depth, and depth beyond 255.99 m is unknown. PNG in
    an arbitrary unit gets the power of 2 with which `farthest` fits into 16 bits.
    """
    if suffix == "npy":
        return DepthForm(suffix, 1.0, size)
    factor = KITTI_FACTOR if metric else 2.0 ** np.floor(np.log2(_LARGEST / farthest))
    return DepthForm(suffix, float(factor), size)


def write_depth_file(file: Path, disparity: np.ndarray, scale: float, form: DepthForm) -> int:
    """Write the depth of a frame.

    Args:
        file: without its suffix.
        disparity: float32 [h, w] in the networks' unit. Disparity is resized, not depth.
        scale: from the networks' unit to that of the file.

    Returns:
        The number of pixels that were too far for the form, and are stored as unknown.
    """
    depth = scale / resize_area(disparity, *form.size)
    if form.suffix == "npy":
        write_depth(file + ".npy", depth)
        return 0
    numbers = np.rint(depth * form.factor)
    beyond = numbers > _LARGEST
    content = io.BytesIO()
    Image.fromarray(np.where(beyond, 0, np.maximum(numbers, 1)).astype(np.uint16)).save(content, format="PNG")
    write_bytes(file + ".png", content.getvalue())
    return int(beyond.sum())


def describe_depth(form: DepthForm, unit: str) -> dict[str, Any]:
    """What the numbers in the depth files mean, for the JSON beside them."""
    return {
        "files": f"depth/NAME.{form.suffix}",
        "meaning": "depth along the camera's axis = number / factor; 0 = unknown",
        "factor": form.factor,
        "unit": unit,
        "width": form.size[1],
        "height": form.size[0],
    }
