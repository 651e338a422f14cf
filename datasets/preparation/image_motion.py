"""The kind of motion between two frames of a video, measured from the images and K alone."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from datasets.preparation.static_frames import MIN_MOTION, image_motion, small_grey
from files.images import resize_area
from geometry.two_view import rotation_explains

FARTHEST = 1 / 12  # of the width: larger motion is out of the warp's reach when training starts from scratch
FEWEST_PATCHES = 12  # that a judgement takes
_COARSE_RADIUS, _FINE_RADIUS = 4, 4  # pixels: half a patch at half and at full analysis size
_SIMILAR = 0.8  # least normalised correlation of a patch with the place where it is found
_RETURN = 0.5  # pixels: largest error after tracking a patch to the second image and back
_BLOCK = (8, 13)  # rows, columns of analysis pixels with one patch
_MOST_ROWS = 10
_WEAKEST_CORNER = 1.0  # smaller eigenvalue of the structure tensor, grey levels squared


@dataclass(frozen=True)
class PairMotion:
    """The motion from one frame to another."""

    identity_error: float  # mean |first - second| with images in [-1, 1]: the photometric error of the identity warp
    static: bool  # the camera stands
    followed: float | None  # share of the textured patches found again within reach; None: static, or no texture
    pixels: float | None  # median motion of the patches that were found, in pixels of the images; None: too few
    rotation_only: bool | None  # a rotation explains the motion; None: static, or too little was found to tell


def measure_pair(first: np.ndarray, second: np.ndarray, intrinsics: np.ndarray) -> PairMotion:
    """Compare two frames.

    Corners of the first image, one per block, are searched in the second: by normalised correlation at half the
    analysis size, then with sub-pixel accuracy by Lucas and Kanade's iteration on patches of equal mean and contrast,
    and back again. If the camera only rotates, the infinite homography K R K^-1 maps every corner to its place at any
    depth (Hartley and Zisserman, Multiple View Geometry, 8.4). R is fitted robustly; the residual is parallax.
    docs/data_check.md has values measured on real frames.

    Args:
        first, second: uint8 [H, W, 3].
        intrinsics: K [3, 3] in pixels of these images.
    """
    identity_error = float(np.abs(first.astype(np.int16) - second).mean() / 127.5)
    grey = small_grey(first), small_grey(second)
    if image_motion(*grey) < MIN_MOTION:
        return PairMotion(identity_error, True, None, None, None)
    corners = _find_corners(grey[0])
    if len(corners) < FEWEST_PATCHES:
        return PairMotion(identity_error, False, None, None, None)
    places, found = _follow(*grey, corners)
    height, width = grey[0].shape
    scale = np.array([width / first.shape[1], height / first.shape[0]])
    motion = (places - corners)[found]
    within = np.abs(motion).max(1, initial=0) < FARTHEST * width
    followed = float(within.sum() / len(corners))
    if found.sum() < FEWEST_PATCHES:
        return PairMotion(identity_error, False, followed, None, None)
    pixels = float(np.median(np.linalg.norm(motion / scale, axis=1)))
    small_intrinsics = np.diag([*scale, 1]) @ intrinsics
    small_intrinsics[:2, 2] += 0.5 * scale - 0.5
    rotation_only = rotation_explains(corners[found], places[found], small_intrinsics)
    return PairMotion(identity_error, False, followed, pixels, rotation_only)


def find_again(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners of one grey image in another: places in both images [n, 2], and whether each was found [n].

    Args:
        first, second: as `static_frames.small_grey` makes them.
    """
    corners = _find_corners(first)
    if len(corners) == 0:
        return corners, corners, np.zeros(0, dtype=bool)
    return corners, *_follow(first, second, corners)


def _find_corners(grey: np.ndarray) -> np.ndarray:
    """The strongest corner (x, y) of each block that has one: float64 [n, 2] (Shi and Tomasi 1994)."""
    vertical, horizontal = np.gradient(grey)
    xx, yy, xy = (gaussian_filter(v, 2) for v in (horizontal * horizontal, vertical * vertical, horizontal * vertical))
    strength = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    margin = 3
    strength[:margin] = strength[-margin:] = strength[:, :margin] = strength[:, -margin:] = 0
    height, width = grey.shape
    rows, columns = min(max(1, height // _BLOCK[0]), _MOST_ROWS), max(1, width // _BLOCK[1])
    corners = []
    for row in np.array_split(np.arange(height), rows):
        for column in np.array_split(np.arange(width), columns):
            block = strength[row[0] : row[-1] + 1, column[0] : column[-1] + 1]
            y, x = np.unravel_index(block.argmax(), block.shape)
            if block[y, x] > _WEAKEST_CORNER:
                corners.append((column[0] + x, row[0] + y))
    return np.array(corners, dtype=np.float64).reshape(-1, 2)


def _follow(first: np.ndarray, second: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [n, 2] in the second grey image of the corners [n, 2] of the first, and whether they were found [n]."""
    height, width = first.shape
    half_first, half_second = (resize_area(grey, height // 2, width // 2) for grey in (first, second))
    places = corners + 2 * _search(half_first, half_second, ((corners + 0.5) / 2 - 0.5).round().astype(int))
    places, similarity = _refine(first, second, corners, places)
    back, _ = _refine(second, first, places, corners)
    inside = (places >= 0).all(1) & (places <= [width - 1, height - 1]).all(1)
    return places, inside & (similarity > _SIMILAR) & (np.linalg.norm(back - corners, axis=1) < _RETURN)


def _search(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The motion [n, 2] in whole pixels with the best correlation, up to a third of the width, half of the height."""
    radius = _COARSE_RADIUS
    height, width = first.shape
    x, y = np.clip(points, 0, [width - 1, height - 1]).T

    def patches(image):
        size = 2 * radius + 1
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, radius, mode="edge"), (size, size))
        flat = windows.reshape(height, width, -1)
        return flat - flat.mean(2, keepdims=True)

    wanted, candidates = patches(first)[y, x], patches(second).reshape(height * width, -1)
    norms = np.linalg.norm(wanted, axis=1)[:, None] * np.linalg.norm(candidates, axis=1)
    score = (wanted @ candidates.T) / (norms + (2 * radius + 1) ** 2 * 1e-3)
    rows, columns = np.divmod(np.arange(height * width), width)
    score[(np.abs(columns - x[:, None]) > width // 3) | (np.abs(rows - y[:, None]) > max(1, height // 2))] = -1
    best = score.argmax(1)
    return np.column_stack([columns[best] - x, rows[best] - y])


def _refine(
    first: np.ndarray, second: np.ndarray, points: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places [n, 2] after Lucas and Kanade's iteration from `places`, and the final correlation [n]."""
    offset = np.arange(-_FINE_RADIUS, _FINE_RADIUS + 1.0)
    across, down = (values.ravel() for values in np.meshgrid(offset, offset))

    def patches(image, centres):
        where = [centres[:, 1, None] + down, centres[:, 0, None] + across]
        return map_coordinates(image, where, order=1, mode="nearest")

    def normalised(values):
        values = values - values.mean(1, keepdims=True)
        spread = values.std(1, keepdims=True) + 1e-3
        return values / spread, spread

    wanted, spread = normalised(patches(first, points))
    vertical, horizontal = np.gradient(first)
    slopes = [patches(slope, points) / spread for slope in (horizontal, vertical)]
    x, y = (slope - slope.mean(1, keepdims=True) for slope in slopes)
    xx, yy, xy = (x * x).sum(1), (y * y).sum(1), (x * y).sum(1)
    determinant = xx * yy - xy**2 + 1e-9
    for _ in range(6):
        difference = normalised(patches(second, places))[0] - wanted
        right_x, right_y = (x * difference).sum(1), (y * difference).sum(1)
        step = np.column_stack([yy * right_x - xy * right_y, xx * right_y - xy * right_x]) / determinant[:, None]
        places = places - step.clip(-1, 1)
    return places, (normalised(patches(second, places))[0] * wanted).mean(1)
