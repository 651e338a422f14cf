"""From the networks' unit to metres: by the camera's height, the vehicle's speed, a known distance, or a constant.

Depth and translations of monocular training share one unknown unit, as far as both networks agree. A clip has one
factor from it to metres. The camera's height gives the translations a factor of their own.
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
from inference.ground import NEAR, MetricView, find_ground, metric_views

_FEWEST_INLIERS = 0.5  # share of a frame's points
_FEWEST_FRAMES = 0.1  # share of a clip's frames
_FEWEST_VIEWS = 3
_WINDOW = 10  # steps over which the speed's ratio is taken for its spread


@dataclass(frozen=True)
class Scale:
    """The factor from the networks' unit to the unit of the results."""

    value: float
    source: str
    metric: bool  # False: the unit is arbitrary
    spread: float | None = None  # standard deviation over the clip (robust), as a share of the value
    frames_used: float | None = None  # share of the clip's frames
    motion: float | None = None  # the translations' own factor; None: `value`

    @property
    def unit(self) -> str:
        return "metres" if self.metric else "arbitrary"

    def in_unit_of_depth(self, world_from_camera: np.ndarray | None) -> np.ndarray | None:
        """A trajectory [F, 3, 4] for which `value` is the right factor."""
        if world_from_camera is None or self.motion is None:
            return world_from_camera
        poses = world_from_camera.copy()
        poses[..., 3] *= self.motion / self.value
        return poses


NETWORK_UNIT = Scale(1.0, "not given; depth and motion are in the network's own unit", metric=False)


def find_scale(
    choice: tuple[str, list[Any]] | None,
    clip: PredictedClip,
    world_from_camera: np.ndarray | None,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    times_known: bool,
    offset: tuple[int, int] = (0, 0),
) -> Scale:
    """The scale of a clip by the kind and the values of --scale; `NETWORK_UNIT` without them.

    Args:
        world_from_camera: [F, 3, 4] in the networks' unit; None without a pose network.
        intrinsics: K in pixels of the frames.
        size: (height, width) of the frames.
        times_known: whether the frames' times are measured ones.
        offset: (x, y) of the frames' first pixel in the input, which may be cropped.
    """
    if choice is None:
        return NETWORK_UNIT
    kind, values = choice
    if kind == "camera-height":
        small = resized_intrinsics(intrinsics, size, clip.disparity[0].shape)
        return scale_from_height(clip, world_from_camera, small, *values)
    if kind == "speed":
        return scale_from_speed(clip, world_from_camera, values[0], times_known)
    if kind == "distance":
        x1, y1, x2, y2, metres = values
        return scale_from_distance(clip, intrinsics, (x1, y1), (x2, y2), metres, size, offset)
    return Scale(values[0], f"constant {values[0]:g}", True)


def scale_from_height(
    clip: PredictedClip,
    world_from_camera: np.ndarray | None,
    intrinsics: np.ndarray,
    metres: float,
    pitch: float | None = None,
) -> Scale:
    """The scale from the camera's height above a flat road.

    The clip's images give points and motion in metres (`metric_views`). The scale of the depth is the median over the
    points near the camera, that of the translations the ratio of the distances.

    Where fewer than a tenth of the frames show motion over a road, a plane is fitted to the depth of each frame
    instead. Predicted roads are often tilted by a degree, which changes the height by several percent.

    Args:
        world_from_camera: [F, 3, 4] in the networks' unit; None without a pose network.
        intrinsics: K at the size of the disparities.
        pitch: degrees by which the camera looks down, without roll; None: it is found.

    Raises:
        InputError: fewer than a tenth of the frames show a plane, either.
    """
    if clip.grey is not None:
        views, tried, found = metric_views(clip.grey, intrinsics, metres, pitch)
        if len(views) >= max(_FEWEST_VIEWS, _FEWEST_FRAMES * tried):
            return _scale_of_views(clip, world_from_camera, views, tried, metres, found)
        pitch = found
    return _scale_of_planes(clip, intrinsics, metres, pitch)


def _scale_of_views(
    clip: PredictedClip,
    world_from_camera: np.ndarray | None,
    views: list[MetricView],
    tried: int,
    metres: float,
    pitch: float | None,
) -> Scale:
    ratios = []  # of metric and predicted depth, for each view's near points
    for view in views:
        x, y = view.pixels[view.depth < NEAR * metres].round().astype(int).T
        ratios.append(view.depth[view.depth < NEAR * metres] * clip.disparity[view.frame][y, x])
    value = float(np.median(np.concatenate(ratios)))
    motion = None
    if world_from_camera is not None:
        centres = world_from_camera[..., 3]
        predicted = sum(float(np.linalg.norm(centres[view.other] - centres[view.frame])) for view in views)
        motion = sum(view.distance for view in views) / predicted if predicted > 0 else None
    source = f"camera height {metres:g} m over the road by the motion in the images, pitch {pitch:.2f} degrees"
    spread = _spread(np.array([np.median(part) for part in ratios if len(part)]))
    return Scale(value, source, True, spread, len(views) / tried, motion)


def _scale_of_planes(clip: PredictedClip, intrinsics: np.ndarray, metres: float, pitch: float | None) -> Scale:
    """A frame counts if most of its points lie on the plane, and if the normal is within 10 degrees of the median."""
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
    tilt = "pitch estimated from that plane" if pitch is None else f"pitch {pitch:.2f} degrees"
    source = (
        f"camera height {metres:g} m above a plane fitted to the predicted depth, {tilt}; too few frames show motion "
        "over a road"
    )
    value = metres / float(np.median(heights))
    return Scale(value, source, True, _spread(heights), len(found) / len(grounds))


def scale_from_speed(clip: PredictedClip, world_from_camera: np.ndarray | None, file: Path, times_known: bool) -> Scale:
    """The scale from the vehicle's speed: metres driven over the length of the predicted trajectory.

    Steps slower than `evaluation.speed_scale.SLOWEST` do not count.

    Args:
        world_from_camera: [F, 3, 4] in the networks' unit.
        file: a line with time and m/s for each measurement, on the input's clock (0 = its first frame); or KITTI's
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
            raise InputError(
                f"{file}: the times of the frames are not known; --fps says how many a second has, if none is missing"
            )
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
    offset: tuple[int, int] = (0, 0),
) -> Scale:
    """The scale from the distance between two points of the clip's first frame.

    Args:
        intrinsics: K in pixels of the frames.
        first, second: (x, y) in pixels of the input.
        size: (height, width) of the frames.
        offset: (x, y) of the frames' first pixel in the input.
    """
    disparity = clip.disparity[0]
    height, width = disparity.shape
    points = []
    for x_of_input, y_of_input in (first, second):
        x, y = x_of_input - offset[0], y_of_input - offset[1]
        if not (0 <= x <= size[1] - 1 and 0 <= y <= size[0] - 1):
            part = f", which begins at {offset}" if any(offset) else ""
            raise InputError(
                f"--scale distance: ({x_of_input:g}, {y_of_input:g}) lies outside the {size[1]} x {size[0]} image{part}"
            )
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
