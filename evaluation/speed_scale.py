"""Metric scale without true depth: how far the vehicle drove, over how far the pose network says that it did.

Depth and translations of monocular training share one unknown unit. The vehicle knows its speed, so the way between two
neighbouring frames is known in metres; the pose network gives the same way in the unit, and what brings one to the
other makes depth metric. (The well-known PyTorch port does the same; it averages the sources' ratios, where this takes
the ratio of their sums, which a small predicted way doesn't upset.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.formats import kitti
from datasets.formats.kitti_folders import frame_number, numbered_files
from datasets.layout import IMAGE_SUFFIXES
from evaluation.ground_truth import split_name
from files.errors import InputError
from files.images import to_network_input
from files.parallel import in_parallel

SLOWEST = 1.0  # m/s; below, the ratio of two ways near 0 says nothing


@dataclass(frozen=True)
class SpeedScale:
    """What one image's depth is multiplied by."""

    scale: float
    measured: bool  # False: the vehicle hardly moved, and the scale is the median of the images where it did


def snippet_frames(root: Path, name: str, length: int) -> list[int]:
    """The numbers of the `length` neighbouring frames whose middle is nearest to an image's.

    The image is the middle one, except at the beginning and the end of a drive. InputError where the frames around the
    image are not there.
    """
    *_, frame = split_name(name)
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
    """The images of a drive's folder by frame number. A folder is listed once."""
    return numbered_files(folder, IMAGE_SUFFIXES)


def true_ways(root: Path, name: str, frames: list[int]) -> tuple[np.ndarray, float]:
    """How far the vehicle drove from the middle one of the frames to each of the others.

    The speed (OXTS: forward, left, up) is taken to change evenly from frame to frame; the time is the camera's, or
    where a download has none the OXTS's.

    Args:
        frames: numbers of neighbouring frames of the drive that the image `name` is of.

    Returns:
        float64 [len(frames) - 1] in metres, in order of time, and the mean speed in m/s. InputError where packets or
        time stamps are missing or damaged.
    """
    date, drive, camera, _ = split_name(name)
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
    ways = np.abs(distances - distances[middle])
    return np.delete(ways, middle), float(distances[-1] / times[-1])


@lru_cache(maxsize=64)
def _timestamps(file: Path, changed: int) -> np.ndarray:
    return kitti.read_timestamps(file)


@torch.inference_mode()
def predict_ways(
    network: torch.nn.Module,
    snippets: list[list[Path]],
    read: Callable[[Path], np.ndarray],
    batch_size: int,
    workers: int,
) -> np.ndarray:
    """The pose network's way from the middle frame of each snippet to the others, in its own unit: float64 [N, n - 1].

    Args:
        network: in eval mode, on the device to be used.
        snippets: the image files of each, in order of time.
        read: an image at the network's size, uint8 [3, H, W].
    """
    device = next(network.parameters()).device
    images = in_parallel(lambda files: np.stack([read(file) for file in files]), snippets, workers)
    ways: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    for number, snippet in enumerate(tqdm(images, total=len(snippets), desc=f"poses on {device}", unit="snippet"), 1):
        batch.append(snippet)
        if len(batch) == batch_size or number == len(snippets):
            frames: Tensor = to_network_input(torch.from_numpy(np.stack(batch)).to(device))
            middle = frames.shape[1] // 2
            transforms, _ = network(frames[:, middle], torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1))
            ways.append(transforms[..., :3, 3].contiguous().norm(dim=-1).cpu().double().numpy())
            batch = []
    return np.concatenate(ways)


def speed_scales(names: list[str], true: list[tuple[np.ndarray, float]], predicted: np.ndarray) -> list[SpeedScale]:
    """The scale of each image's depth: the sum of its true ways over that of the predicted ones.

    Where the vehicle is slower than SLOWEST, or the network predicts no way at all, the image gets the median of the
    others. InputError for predicted ways [N, n - 1] that are not finite, or if there is no other.
    """
    if not np.isfinite(predicted).all() or (predicted < 0).any():
        index = int(np.argmin((np.isfinite(predicted) & (predicted >= 0)).all(1)))
        raise InputError(f"prediction {index} ({names[index]}): the pose network's way is {predicted[index].tolist()}")
    metres = np.array([ways.sum() for ways, _ in true])
    units = predicted.sum(1)
    measured = (np.array([speed for _, speed in true]) >= SLOWEST) & (units > 0)
    if not measured.any():
        raise InputError(
            f"none of the {len(names)} images was taken faster than {SLOWEST:g} m/s: no scale from the speed"
        )
    scales = np.divide(metres, units, out=np.zeros(len(names)), where=measured)
    scales[~measured] = np.median(scales[measured])
    return [SpeedScale(float(scale), bool(known)) for scale, known in zip(scales, measured, strict=True)]
