"""Which frames of a video show no motion of the camera, by the images alone."""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter

from files.images import resize_area

ANALYSIS_WIDTH = 208  # pixels: motion is measured in images at most this wide
MIN_MOTION = 0.038  # pixels since the last moving frame
MIN_STEP = 0.02  # pixels since the frame before
_BLUR = 0.75  # pixels: noise and JPEG's blocks go, edges stay
_BLOCKS = (8, 16)  # rows, columns
_STILL_SHARE = 0.25  # of the textured blocks
_GREY_FLOOR = 1.0  # grey levels a pixel: what counts as texture at all


def find_static_frames(images: Iterable[np.ndarray]) -> list[bool]:
    """For each frame of a video in order: has the camera stood still since the last frame that it moved in?

    Compared with the last moving frame, slow motion adds up until it is seen, and of any number of equal frames one
    stays. But cars that drive by will have covered much of that frame after a while: compared with the frame before
    as well, they haven't.

    Args:
        images: uint8 [H, W, 3], all of one size.
    """
    static: list[bool] = []
    before: np.ndarray | None = None
    last_moving: np.ndarray | None = None
    for image in images:
        small = small_grey(image)
        if before is None or last_moving is None:
            still = False
        else:
            still = image_motion(before, small) < MIN_STEP or image_motion(last_moving, small) < MIN_MOTION
        static.append(still)
        before = small
        if not still:
            last_moving = small
    return static


def image_motion(first: np.ndarray, second: np.ndarray) -> float:
    """How far the stillest part of the picture moved between two grey images [H, W], in pixels.

    Brightness constancy says |I2 - I1| = |motion along the gradient| |gradient|. The ratio of the two, each summed
    over the strong edges of a block, is the block's motion. (A change of brightness as a whole is taken out.) Sorted
    by motion, the block a quarter of the way up speaks for the picture: when the camera moves, all of the scene does,
    except around the point that it moves towards; when it stands, others may move in up to three quarters of the
    textured blocks.

    docs/preparation.md has the values on real frames.
    """
    if min(first.shape) < 2:
        return float(np.abs(second - first).mean())
    vertical, horizontal = np.gradient((first + second) / 2)
    gradient = np.hypot(vertical, horizontal)
    change = second - first
    change = np.abs(change - np.median(change))
    edges = gradient >= np.quantile(gradient, 0.8)

    rows, columns = min(_BLOCKS[0], first.shape[0]), min(_BLOCKS[1], first.shape[1])
    row_starts = np.arange(rows) * first.shape[0] // rows
    column_starts = np.arange(columns) * first.shape[1] // columns

    def block_sums(values):
        return np.add.reduceat(np.add.reduceat(values, row_starts, axis=0), column_starts, axis=1).ravel()

    count = block_sums(edges.astype(np.float32))
    motion = block_sums(change * edges) / (block_sums(gradient * edges) + _GREY_FLOOR * count + 1e-6)
    textured = count >= 0.03 * first.size / (rows * columns)
    return float(np.quantile(motion[textured], _STILL_SHARE))


def small_grey(image: np.ndarray) -> np.ndarray:
    """float32 [H, W], small and smooth: finer detail would show noise, not motion."""
    grey = image.mean(2, dtype=np.float32)
    if image.shape[1] > ANALYSIS_WIDTH:
        grey = resize_area(grey, max(1, round(image.shape[0] * ANALYSIS_WIDTH / image.shape[1])), ANALYSIS_WIDTH)
    return gaussian_filter(grey, _BLUR)
