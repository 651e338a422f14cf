"""The ground below a driving camera: in the motion of a clip's frames, and in a map of predicted depth."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from datasets.view_pairs import find_pair
from files.disk_array import DiskArray
from geometry.two_view import TwoViews

# The part of the image in which the ground is looked for, as shares of height and width: lower middle.
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.6, 0.97, 0.25, 0.75
_POINTS = 1200  # of a frame, on a regular grid
_FEWEST_POINTS = 12
_SMALLEST_TRIANGLE = 2.0  # square pixels, twice its area: a smaller one has no plane that means anything
_TRIALS = 128  # planes through three points that are tried
_INLIER = 0.05  # largest |d - plane| / plane of a point of the ground, d its disparity
_STEEPEST = 25.0  # degrees between the ground's normal and the camera's y axis

_MOST_FRAMES = 200  # of a clip whose motion is looked at, each some 50 ms at 208 x 64
NEAR = 10.0  # camera heights: depth up to which points count (16 m for a car); farther ones have little parallax
_STRIP = 1.5  # camera heights to the left and to the right: about a lane
_FEWEST_ROAD_POINTS = 6  # of a pair of frames
_FEWEST_ON_ROAD = 0.3  # share of the points seen in the strip
_ROAD_BAND = 0.15  # largest deviation of a road point's height from that of the road, as a share


@dataclass(frozen=True)
class Ground:
    """A plane in the camera's frame: normal @ X = height, y down, in the unit of the depth."""

    height: float  # distance of the camera from the plane
    normal: np.ndarray  # [3], unit length, towards the ground
    inliers: float  # share of the points looked at


@dataclass(frozen=True)
class MetricView:
    """A frame's triangulated points, and the way to another frame, in the unit of the camera's height."""

    frame: int
    other: int  # the frame that it was triangulated with
    distance: float  # of both frames' cameras
    pixels: np.ndarray  # [n, 2] of the frame
    depth: np.ndarray  # [n]


def metric_views(
    grey: DiskArray, intrinsics: np.ndarray, height: float, pitch: float | None = None
) -> tuple[list[MetricView], int, float | None]:
    """Points and motion of a clip in the unit of the camera's height above the road, from its images and K alone.

    Two frames show their points and motion up to one unit, the distance of both cameras (`geometry.two_view`). A car
    drives along the road, so that the road's normal is perpendicular to the motion. This gives the camera's pitch, the
    mean over the clip. The camera's height over the points of the road is then known in that unit.

    Args:
        grey: uint8 [h, w] of each frame.
        intrinsics: K at this size.
        pitch: degrees by which the camera looks down; None: from the motion. There is no roll.

    Returns:
        The frames whose motion and road were found, how many frames were looked at, and the pitch; None without motion.
    """
    count = len(grey)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int))
    pairs = []
    for frame in tqdm(chosen, desc="motion over the road", unit="frame", delay=2):
        pair = find_pair(grey, int(frame), intrinsics, read=np.asarray)
        if pair is not None and pair[1].problem is None:
            pairs.append((int(frame), *pair))
    if pitch is None:
        pitch = pitch_of_motion(views for _, _, views in pairs)
    if pitch is None:
        return [], len(chosen), None
    found = []
    for frame, gap, views in pairs:
        over_distance = height_over_distance(views, intrinsics, pitch)
        if over_distance is not None:
            metres = height / over_distance  # of a baseline
            depth = metres / np.maximum(views.inverse_depth, 1e-9)
            found.append(MetricView(frame, frame + gap, metres, views.pixels, depth))
    return found, len(chosen), pitch


def pitch_of_motion(pairs: Iterable[TwoViews]) -> float | None:
    """Degrees by which a camera without roll looks down from the direction in which it drives: the mean over pairs of
    views, without those farther than three robust standard deviations from the median; None without a pair that moves
    along the camera's axis rather than across it.
    """
    pitches = []
    for views in pairs:
        if views.source_from_target is None:
            continue
        rotation, translation = views.source_from_target[:3, :3], views.source_from_target[:3, 3]
        x, y, z = translation + rotation.T @ translation  # as both cameras see it, up to its sign and length
        if abs(z) > max(abs(x), abs(y)):
            pitches.append(np.degrees(np.arctan(-y / z)))
    if not pitches:
        return None
    away = np.abs(pitches - np.median(pitches))
    return float(np.mean(np.array(pitches)[away <= 3 * 1.4826 * np.median(away)]))


def height_over_distance(views: TwoViews, intrinsics: np.ndarray, pitch: float) -> float | None:
    """The camera's height above the road, in distances of both views; None where too few points agree.

    Only points are looked at whose rays meet the ground in the strip that the car drives on: verges and pavements are
    higher than the road.
    """
    rays = np.column_stack([views.pixels, np.ones(len(views.pixels))]) @ np.linalg.inv(intrinsics).T
    down = rays @ normal_of(pitch)
    on_strip = (
        (down > 0) & (np.abs(rays[:, 0]) < _STRIP * down) & (rays[:, 2] < NEAR * down) & (views.inverse_depth > 0)
    )
    below = down[on_strip] / views.inverse_depth[on_strip]  # how far the points lie below the camera
    if len(below) < _FEWEST_ROAD_POINTS:
        return None
    near = np.abs(below / below[:, None] - 1) < _ROAD_BAND  # [candidate, point]
    road = near[np.argmax(near.sum(1))]
    if road.sum() < max(_FEWEST_ROAD_POINTS, _FEWEST_ON_ROAD * len(below)):
        return None
    return float(np.median(below[road]))


def normal_of(pitch: float) -> np.ndarray:
    """The ground's normal [3], downwards, as a camera sees it that looks down by `pitch` degrees and does not roll."""
    return np.array([0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))])


def find_ground(disparity: np.ndarray, intrinsics: np.ndarray, pitch: float | None = None) -> Ground | None:
    """The ground plane in the lower middle of a disparity map [h, w]; None where no plane fits.

    The inverse depth of a plane is linear in the pixel: 1 / Z = n^T K^-1 p / height. So three coefficients are fitted
    to disparities: by trials through three points, then by iteratively reweighted least squares on the relative
    residual (Tukey's biweight). With a given pitch (see `scale_from_height`) only the height is left.
    """
    height, width = disparity.shape
    step = max(1, int(np.sqrt((_BOTTOM - _TOP) * (_RIGHT - _LEFT) * height * width / _POINTS)))
    y, x = np.mgrid[int(_TOP * height) : int(_BOTTOM * height) : step, int(_LEFT * width) : int(_RIGHT * width) : step]
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1).astype(np.float64)
    values = disparity[y.ravel(), x.ravel()].astype(np.float64)
    if len(values) < _FEWEST_POINTS:
        return None
    plane = _best_trial(pixels, values, intrinsics) if pitch is None else _tilted(pitch, intrinsics)
    if plane is None:
        return None
    plane = _reweighted(pixels, values, plane, None if pitch is None else plane)
    if plane is None or not _is_ground(plane[None], intrinsics)[0]:
        return None
    fitted = pixels @ plane
    share = float(np.mean(np.abs(values - fitted) < _INLIER * fitted))
    over_height = intrinsics.T @ plane  # n / height
    length = float(np.linalg.norm(over_height))
    return Ground(1 / length, over_height / length, share)


def _best_trial(pixels: np.ndarray, values: np.ndarray, intrinsics: np.ndarray) -> np.ndarray | None:
    """Of `_TRIALS` planes through three points the one with most inliers; None where none is a ground."""
    chosen = np.random.default_rng(0).integers(0, len(values), (_TRIALS, 3))
    corners = pixels[chosen]  # [T, 3, 3]
    whole = np.abs(np.linalg.det(corners)) > _SMALLEST_TRIANGLE
    planes = np.linalg.solve(corners[whole], values[chosen[whole]][..., None])[..., 0]  # [T, 3]
    planes = planes[_is_ground(planes, intrinsics)]
    if not len(planes):
        return None
    fitted = planes @ pixels.T
    return planes[int(np.argmax((np.abs(values - fitted) < _INLIER * fitted).sum(1)))]


def _tilted(pitch: float, intrinsics: np.ndarray) -> np.ndarray:
    """The plane's coefficients at height 1 below a camera that looks down by `pitch` degrees."""
    return np.linalg.solve(intrinsics.T, normal_of(pitch))


def _reweighted(
    pixels: np.ndarray, values: np.ndarray, plane: np.ndarray, direction: np.ndarray | None
) -> np.ndarray | None:
    """The plane [3] by iteratively reweighted least squares, from a first one; None where too few points are near.

    Args:
        direction: coefficients that the plane is a multiple of; its first size is then the median ratio.
    """
    if direction is not None:
        below = pixels @ direction > 0  # the horizon
        if np.count_nonzero(below) < _FEWEST_POINTS:
            return None
        pixels, values = pixels[below], values[below]
        plane = direction * np.median(values / (pixels @ direction))
    columns = pixels if direction is None else (pixels @ direction)[:, None]
    for _ in range(10):
        fitted = pixels @ plane
        ratio = np.abs(values - fitted) / (2 * _INLIER * np.maximum(fitted, 1e-12))
        weights = np.where((ratio < 1) & (fitted > 0), (1 - ratio**2) ** 2, 0) / np.maximum(fitted, 1e-12) ** 2
        if np.count_nonzero(weights) < _FEWEST_POINTS:
            return None
        root = np.sqrt(weights)
        found = np.linalg.lstsq(columns * root[:, None], values * root, rcond=None)[0]
        plane = found if direction is None else found[0] * direction
    return plane


def _is_ground(planes: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Whether planes [T, 3] (of 1 / Z over pixels) lie below the camera and are not steeper than `_STEEPEST`."""
    normals = planes @ intrinsics
    lengths = np.linalg.norm(normals, axis=1)
    return normals[:, 1] > np.cos(np.radians(_STEEPEST)) * np.maximum(lengths, 1e-12)
