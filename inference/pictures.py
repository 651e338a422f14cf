"""Pictures of a clip: the input beside its depth, in one range of colours for the whole clip."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from path import Path
from PIL import Image, ImageDraw, ImageFont

from files.atomic import write_bytes
from files.images import resize_area
from visualization.colours import colourise

WIDEST = 1280  # pixels of each of the two pictures
COLOURS = "magma"
_STACKED_FROM = 1.6  # width / height from which the depth is below the input, not at its right
_BAR = 28  # pixels of the legend's height
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Range:
    """The colours of a clip: inverse depth from 0 (dark, far) to `highest` (bright, near)."""

    highest: float  # in the networks' unit, 1 / depth
    scale: float  # from the networks' unit to `unit`
    unit: str  # "m", or "" for an arbitrary one


def draw(image: np.ndarray, disparity: np.ndarray, colours: Range, legend: bool = True) -> np.ndarray:
    """A frame and its depth: uint8 [h, w, 3] with even sides, beside each other or, of wide frames, stacked.

    Args:
        image: uint8 [H, W, 3].
        disparity: [h, w] of any size, in the networks' unit.
    """
    height, width = panel_size(*image.shape[:2])
    panels = [resize_area(image, height, width), colour(resize_area(disparity, height, width), colours)]
    picture = np.concatenate(panels, 0 if width >= _STACKED_FROM * height else 1)
    if not legend:
        return picture
    return np.concatenate([picture, draw_legend(picture.shape[1], colours)])


def colour(disparity: np.ndarray, colours: Range) -> np.ndarray:
    """Disparities [h, w] as uint8 [h, w, 3]."""
    return colourise(torch.from_numpy(disparity), 0, colours.highest, COLOURS).permute(1, 2, 0).numpy()


def panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of each of the two pictures: that of the input, at most `WIDEST` wide, even (as H.264 needs)."""
    shrunk = min(1.0, WIDEST / width, WIDEST / height)
    return max(2, round(height * shrunk / 2) * 2), max(2, round(width * shrunk / 2) * 2)


def draw_legend(width: int, colours: Range) -> np.ndarray:
    """The colours from far to near with some depths below: uint8 [_BAR, width, 3]."""
    ramp = np.tile(np.linspace(0, colours.highest, width, dtype=np.float32), (10, 1))
    bar = np.concatenate([colour(ramp, colours), np.zeros((_BAR - 10, width, 3), np.uint8)])
    picture = Image.fromarray(bar)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for share in np.arange(1, 9) / 8 if width >= 400 else (0.25, 0.5, 1.0):
        depth = colours.scale / (share * colours.highest)
        label = f"{depth:.3g} {colours.unit}".strip()
        length = pen.textlength(label, font)
        left = share * (width - 1) - (length + 2 if share == 1 else length / 2)
        pen.text((left, 11), label, fill=(230, 230, 230), font=font)
    return np.asarray(picture)


def write_picture(file: Path, picture: np.ndarray) -> None:
    """A picture, uint8 [h, w, 3], as JPEG: whole under its name, or not at all."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="JPEG", quality=_JPEG_QUALITY)
    write_bytes(file, content.getvalue())
