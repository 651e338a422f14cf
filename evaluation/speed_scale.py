"""Metric scale without true depth: the distance driven over the distance that the pose network predicts.

Depth and translations of monocular training share one unknown unit. The vehicle measures its speed, so the distance
between two neighbouring frames is known in metres. The pose network predicts the same distance in its own unit. Their
ratio, applied to depth, gives metres. (The well-known PyTorch port averages the ratios of the sources. Here it is the
ratio of the sums, which stays stable where one predicted distance is small.)
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from path import Path

from datasets.formats import kitti
from datasets.formats.kitti_folders import frame_number, numbered_files
from datasets.layout import IMAGE_SUFFIXES
from evaluation.ground_truth import split_name
from files.errors import InputError

ADVICE = "the scale from the speed needs the OXTS packets of its drive"
SLOWEST = 1.0  # m/s; at lower speeds the ratio of two distances near 0 is noise


@dataclass(frozen=True)
class SpeedScale:
    """The factor from an image's predicted depth to metres."""

    scale: float
    measured: bool  # False: the vehicle was slower than SLOWEST, and the scale is the median of the other images


def snippet_frames(root: Path, name: str, length: int) -> list[int]:
    """The numbers of the `length` neighbouring frames of KITTI raw whose middle is nearest to an image.

    The image is the middle one, except at the beginning and the end of a drive.

    Raises:
        InputError: frames around the image are missing.
    """
    *_, frame = split_name(name, ADVICE)
    folder = (root / name).parent
    there = drive_images(folder)
    number = frame_number(frame)
    starts = [
        start
        for start in range(number - length + 1, number + 1)
        if all(start + step in there for step in range(length))
    ]
    if not starts:
        raise InputError(
            f"{folder}: frame {number} has no {length - 1} neighbours, expected them for the scale from the speed"
        )
    start = min(starts, key=lambda start: abs(start + length // 2 - number))
    return list(range(start, start + length))


@lru_cache(maxsize=64)
def drive_images(folder: Path) -> dict[int, Path]:
    """The images of a drive's folder by frame number. Each folder is listed once per process."""
    return numbered_files(folder, IMAGE_SUFFIXES)


def true_distances(root: Path, name: str, frames: list[int]) -> tuple[np.ndarray, float]:
    """The distance that the vehicle drove from the middle frame to each of the others.

    The speed (OXTS: forward, left, up) is interpolated linearly between frames. Times are the camera's time stamps, or
    the OXTS's where a download lacks the camera's.

    Args:
        frames: numbers of neighbouring frames of the drive that holds the image `name`.

    Returns:
        float64 [len(frames) - 1] in metres, in order of time, and the mean speed in m/s.

    Raises:
        InputError: packets or time stamps are missing or damaged.
    """
    date, drive, camera, _ = split_name(name, ADVICE)
    folder = root / date / drive
    packets = np.stack([kitti.read_oxts(folder / "oxts/data" / f"{frame:010d}.txt") for frame in frames])
    speeds = np.linalg.norm(packets[:, 8:11], axis=1)
    file = folder / f"image_{camera}/timestamps.txt"
    if not file.is_file():
        file = folder / "oxts/timestamps.txt"
    stamps = _timestamps(file, file.stat().st_mtime_ns if file.is_file() else 0)
    times = kitti.frame_seconds(stamps, frames, file)
    steps = np.diff(times)
    distances = np.concatenate([[0], np.cumsum(0.5 * (speeds[1:] + speeds[:-1]) * steps)])
    middle = len(frames) // 2
    from_middle = np.abs(distances - distances[middle])
    return np.delete(from_middle, middle), float(distances[-1] / times[-1])


@lru_cache(maxsize=64)
def _timestamps(file: Path, changed: int) -> np.ndarray:
    return kitti.read_timestamps(file)


def speed_scales(names: list[str], true: list[tuple[np.ndarray, float]], predicted: np.ndarray) -> list[SpeedScale]:
    """The scale of each image's depth: the sum of its true distances over the sum of the predicted ones.

    Where the vehicle is slower than SLOWEST, or the predicted distances are 0, the image gets the median of the others.

    Args:
        true: of each image, the distances [n - 1] in metres and the speed in m/s, of `true_distances`.
        predicted: distances [N, n - 1] in the network's unit.

    Raises:
        InputError: predicted distances that are negative or not finite; no image from which a scale can be measured.
    """
    if not np.isfinite(predicted).all() or (predicted < 0).any():
        index = int(np.argmin((np.isfinite(predicted) & (predicted >= 0)).all(1)))
        raise InputError(
            f"prediction {index} ({names[index]}): the pose network's distances are {predicted[index].tolist()}"
        )
    metres = np.array([distances.sum() for distances, _ in true])
    units = predicted.sum(1)
    measured = (np.array([speed for _, speed in true]) >= SLOWEST) & (units > 0)
    if not measured.any():
        raise InputError(
            f"none of the {len(names)} images was taken faster than {SLOWEST:g} m/s: no scale from the speed"
        )
    scales = np.divide(metres, units, out=np.zeros(len(names)), where=measured)
    scales[~measured] = np.median(scales[measured])
    return [SpeedScale(float(scale), bool(known)) for scale, known in zip(scales, measured, strict=True)]
