"""Pairs of frames that show structure: a frame and the nearest one of its scene with enough motion between them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from files.disk_array import DiskArray
from files.errors import InputError
from files.images import read_image
from geometry.two_view import NO_MOTION, TwoViews, measure_two_views

LEAST_MOTION = 2.0  # pixels, in the median of the tracks
LARGEST_GAP = 16  # frames


def find_pair(
    frames: Sequence[Any] | DiskArray,
    number: int,
    intrinsics: np.ndarray,
    least_motion: float = LEAST_MOTION,
    read: Callable[[Any], np.ndarray] = read_image,
) -> tuple[int, TwoViews] | None:
    """A frame's nearest neighbour with enough motion, and what both show; None where a frame cannot be read.

    Frames after it are tried first, then those before it. The distance grows as the motion found so far demands.

    Args:
        frames: image files in order of time, without breaks (`Scene.runs`); or what else `read` takes.
        number: of the frame among them.
        intrinsics: K [3, 3] of the images.
        read: from an entry of `frames` to an image, uint8 [H, W] or [H, W, 3].

    Returns:
        The gap, negative before the frame, and the two views. Where no neighbour has points, those tried last.
    """
    found = None
    for direction in (1, -1):
        farthest = min(LARGEST_GAP, len(frames) - 1 - number if direction > 0 else number)
        gap = 1
        while gap <= farthest:
            try:
                target, source = (read(frames[k]) for k in (number, number + direction * gap))
            except (InputError, OSError):
                break
            if target.shape != source.shape:
                break
            views = measure_two_views(target, source, intrinsics, least_motion)
            found = direction * gap, views
            if views.problem is None:
                return found
            if views.problem != NO_MOTION:
                break
            gap = next_gap(gap, farthest, views.motion, least_motion)
    return found


def next_gap(gap: int, farthest: int, motion: float, least_motion: float) -> int:
    """The gap to try after one with too little motion, as if the motion were steady: at most `farthest`, after which
    comes one more, which ends the search.
    """
    if gap == farthest:
        return farthest + 1
    needed = gap * least_motion / motion if motion > 0 else math.inf
    return farthest if needed >= farthest else max(gap + 1, math.ceil(needed))
