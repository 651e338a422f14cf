"""From the networks' unit to metres: by the camera's height, the vehicle's speed, a known distance, or a constant.

Depth and translations of monocular training share one unknown unit. A clip has one factor from it to metres.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from path import Path

from datasets.formats import kitti
from datasets.formats.kitti_folders import frame_number, numbered_files
from evaluation.speed_scale import SLOWEST
from files.errors import InputError
from files.text import read_rows
from inference.camera import resized_intrinsics
from inference.clip import PredictedClip

# The part of the image in which the ground is looked for, as shares of height and width: lower middle.
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.6, 0.97, 0.25, 0.75
_POINTS = 1200  # of a frame, on a regular grid
_FEWEST_POINTS = 12
_SMALLEST_TRIANGLE = 2.0  # square pixels, twice its area: a smaller one has no plane that means anything
_TRIALS = 128  # planes through three points that are tried
_INLIER = 0.05  # largest |d - plane| / plane of a point of the ground, d its disparity
_STEEPEST = 25.0  # degrees between the ground's normal and the camera's y axis
_FEWEST_INLIERS = 0.5  # share of a frame's points
_FEWEST_FRAMES = 0.1  # share of a clip's frames
_WINDOW = 10  # steps over which the speed's ratio is taken for its spread


@dataclass(frozen=True)
class Scale:
    """The factor from the networks' unit to the unit of the results."""

    value: float
    source: str
    metric: bool  # False: the unit is arbitrary
    spread: float | None = None  # standard deviation over the clip (robust), as a share of the value
    frames_used: float | None = None  # share of the clip's frames

    @property
    def unit(self) -> str:
        return "metres" if self.metric else "arbitrary"


NETWORK_UNIT = Scale(1.0, "none: the network's own unit", metric=False)


def find_scale(
    choice: tuple[str, list[Any]] | None,
    clip: PredictedClip,
    world_from_camera: np.ndarray | None,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    times_known: bool,
) -> Scale:
    """The scale of a clip by the kind and the values of --scale; `NETWORK_UNIT` without them.

    Args:
        world_from_camera: [F, 3, 4] in the networks' unit; None without a pose network.
        intrinsics: K in pixels of the input.
        size: (height, width) of the input.
        times_known: whether the frames' times are measured ones.
    """
    if choice is None:
        return NETWORK_UNIT
    kind, values = choice
    if kind == "camera-height":
        small = resized_intrinsics(intrinsics, size, clip.disparity[0].shape)
        return scale_from_height(clip, small, *values)
    if kind == "speed":
        return scale_from_speed(clip, world_from_camera, values[0], times_known)
    if kind == "distance":
        x1, y1, x2, y2, metres = values
        return scale_from_distance(clip, intrinsics, (x1, y1), (x2, y2), metres, size)
    return Scale(values[0], f"constant {values[0]:g}", True)


@dataclass(frozen=True)
class Ground:
    """A plane in the camera's frame: normal @ X = height, y down, in the unit of the depth."""

    height: float  # distance of the camera from the plane
    normal: np.ndarray  # [3], unit length, towards the ground
    inliers: float  # share of the points looked at


def scale_from_height(clip: PredictedClip, intrinsics: np.ndarray, metres: float, pitch: float | None = None) -> Scale:
    """The scale from the camera's height above the ground.

    The plane is found in each frame. A frame counts if most of its points lie on the plane, and if the normal is
    within 10 degrees of the clip's median.

    Args:
        intrinsics: K at the size of the disparities.
        pitch: degrees by which the camera looks down, without roll; None: the plane's tilt is found, too. Predicted
            roads are often tilted by a degree, which changes the height by several percent: a known pitch helps.

    Raises:
        InputError: fewer than a tenth of the frames show a plane.
    """
    grounds = [find_ground(clip.disparity[index], intrinsics, pitch) for index in range(len(clip.disparity))]
    found = [ground for ground in grounds if ground is not None and ground.inliers >= _FEWEST_INLIERS]
    if found:
        middle = np.median([ground.normal for ground in found], axis=0)
        middle /= np.linalg.norm(middle)
        found = [ground for ground in found if ground.normal @ middle > np.cos(np.radians(10))]
    if len(found) < max(1, _FEWEST_FRAMES * len(grounds)):
        raise InputError(
            f"--scale camera-height: {len(found)} of {len(grounds)} frames show a ground plane in their lower middle, "
            f"expected {100 * _FEWEST_FRAMES:.0f} % or more; use another --scale"
        )
    heights = np.array([ground.height for ground in found])
    middle_height = float(np.median(heights))
    tilt = "found" if pitch is None else f"{pitch:g} degrees"
    source = f"camera height {metres:g} m over the ground plane, pitch {tilt}"
    return Scale(metres / middle_height, source, True, _spread(heights), len(found) / len(grounds))


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
    normal = np.array([0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))])
    return np.linalg.solve(intrinsics.T, normal)


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


def scale_from_speed(clip: PredictedClip, world_from_camera: np.ndarray | None, file: Path, times_known: bool) -> Scale:
    """The scale from the vehicle's speed: metres driven over the length of the predicted trajectory.

    Steps slower than `evaluation.speed_scale.SLOWEST` do not count.

    Args:
        world_from_camera: [F, 3, 4] in the networks' unit.
        file: a line with time and m/s for each measurement, on the clip's clock (0 = its first frame); or KITTI's
            folder oxts, whose packets have the numbers of the frames.
    """
    if world_from_camera is None:
        raise InputError("--scale speed: there is no trajectory, which needs a pose network and enough frames")
    if file.is_dir():
        times, speeds = _read_oxts(file, clip.names)
    else:
        rows = read_rows(file, 2)
        if len(rows) < 2 or (np.diff(rows[:, 0]) <= 0).any() or (rows[:, 1] < 0).any():
            raise InputError(f"{file}: expected two lines or more with ascending times and speeds from 0 on")
        times = np.array(clip.times)
        if not times_known:
            raise InputError(f"{file}: the times of the frames are not known; --fps says how many a second has")
        if times[0] < rows[0, 0] - 0.5 or times[-1] > rows[-1, 0] + 0.5:
            raise InputError(
                f"{file}: speeds from {rows[0, 0]:g} to {rows[-1, 0]:g} s, but the clip lasts from {times[0]:g} to "
                f"{times[-1]:g} s"
            )
        speeds = np.interp(times, rows[:, 0], rows[:, 1])
    metres = 0.5 * (speeds[1:] + speeds[:-1]) * np.diff(times)
    units = np.linalg.norm(np.diff(world_from_camera[..., 3], axis=0), axis=1)
    counted = (metres >= SLOWEST * np.diff(times)) & (units > 0)
    if not counted.any():
        raise InputError(f"{file}: the vehicle is never faster than {SLOWEST:g} m/s: no scale from the speed")
    metres, units = metres[counted], units[counted]
    windows = max(1, len(metres) // _WINDOW)
    ratios = np.array(
        [
            part.sum() / whole.sum()
            for part, whole in zip(np.array_split(metres, windows), np.array_split(units, windows), strict=True)
        ]
    )
    source = f"speed of {file}"
    return Scale(float(metres.sum() / units.sum()), source, True, _spread(ratios), float(counted.mean()))


def _read_oxts(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and speeds in m/s of the frames with these names, from KITTI's folder oxts."""
    packets = numbered_files(folder / "data", (".txt",))
    numbers = [frame_number(name) for name in names]
    missing = [number for number in numbers if number not in packets]
    if missing:
        raise InputError(f"{folder}/data: no packet for frame {missing[0]}, expected one for each frame of the clip")
    speeds = np.linalg.norm(np.stack([kitti.read_oxts(packets[number])[8:11] for number in numbers]), axis=1)
    file = folder / "timestamps.txt"
    return kitti.frame_seconds(kitti.read_timestamps(file), numbers, file), speeds


def scale_from_distance(
    clip: PredictedClip,
    intrinsics: np.ndarray,
    first: tuple[float, float],
    second: tuple[float, float],
    metres: float,
    size: tuple[int, int],
) -> Scale:
    """The scale from the distance between two points of the clip's first frame.

    Args:
        intrinsics: K in pixels of the input.
        first, second: (x, y) in pixels of the input.
        size: (height, width) of the input.
    """
    disparity = clip.disparity[0]
    height, width = disparity.shape
    points = []
    for x, y in (first, second):
        if not (0 <= x <= size[1] - 1 and 0 <= y <= size[0] - 1):
            raise InputError(f"--scale distance: ({x:g}, {y:g}) lies outside the {size[1]} x {size[0]} image")
        column, row = (x + 0.5) * width / size[1] - 0.5, (y + 0.5) * height / size[0] - 0.5
        depth = 1 / disparity[int(np.clip(round(row), 0, height - 1)), int(np.clip(round(column), 0, width - 1))]
        points.append(depth * np.linalg.solve(intrinsics, [x, y, 1]))
    distance = float(np.linalg.norm(points[0] - points[1]))
    if distance == 0:
        raise InputError("--scale distance: both points are the same")
    return Scale(metres / distance, f"{metres:g} m between two points of frame {clip.names[0]}", True, None, None)


def _spread(values: np.ndarray) -> float:
    """Robust standard deviation as a share of the median."""
    middle = float(np.median(values))
    return 1.4826 * float(np.median(np.abs(values - middle))) / middle
