"""Detection of frames in which the camera stands, by the images alone."""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter

from files.images import resize_area

ANALYSIS_WIDTH = 208  # pixels: images are reduced to this width before motion is measured
MIN_MOTION = 0.038  # pixels since the last moving frame: a frame with less is static
MIN_STEP = 0.02  # pixels since the frame before: a frame with less is static
_BLUR = 0.75  # pixels, standard deviation: it removes noise and JPEG's blocks and keeps edges
_BLOCKS = (8, 16)  # rows and columns of blocks
_STILL_SHARE = 0.25  # the quantile of the blocks' motion that counts as the image's
_GREY_FLOOR = 1.0  # grey levels per pixel, added to the gradient: below it there is hardly any texture


def find_static_frames(images: Iterable[np.ndarray]) -> list[bool]:
    """For each frame, whether the camera has stood still since the last moving frame.

    A frame is static if it shows too little motion since the last moving frame, or since the frame before. The first
    comparison lets slow motion add up until it is large enough, and keeps one of any number of equal frames. The
    second one is for cars that pass a standing camera: after a while they cover much of the last moving frame.

    Args:
        images: uint8 [H, W, 3], all of one size, in order of time.
    """
    standing = StandingCamera()
    return [standing.stands(small_grey(image)) for image in images]


class StandingCamera:
    """`find_static_frames` frame by frame, for streams."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._last_moving: np.ndarray | None = None

    def stands(self, small: np.ndarray) -> bool:
        """Whether the next frame, given as `small_grey` makes it, is static; the first one is not."""
        before, last_moving = self._before, self._last_moving
        self._before = small
        still = False
        if before is not None and last_moving is not None:
            still = image_motion(before, small) < MIN_STEP or image_motion(last_moving, small) < MIN_MOTION
        if not still:
            self._last_moving = small
        return still


def image_motion(first: np.ndarray, second: np.ndarray) -> float:
    """The camera's motion between two grey images [H, W], in pixels: the first quartile of the motion of blocks.

    By brightness constancy |I2 - I1| = |motion along the gradient| |gradient|. A block's motion is the ratio of both,
    each summed over the strong edges of the block, after the median change of brightness is subtracted. If the camera
    moves, all of the image moves except around the focus of expansion. If it stands, other things may move in up to
    three quarters of the textured blocks: hence the first quartile.

    docs/preparation.md has values of real frames.
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
    """A grey image, reduced to ANALYSIS_WIDTH and blurred, since fine detail shows noise: float32 [H, W].

    Args:
        image: uint8 [H, W, 3].
    """
    grey = image.mean(2, dtype=np.float32)
    if image.shape[1] > ANALYSIS_WIDTH:
        grey = resize_area(grey, max(1, round(image.shape[0] * ANALYSIS_WIDTH / image.shape[1])), ANALYSIS_WIDTH)
    return gaussian_filter(grey, _BLUR)
