"""Cityscapes' video: its folders, and the files of camera and vehicle. numpy only.

    leftImg8bit_sequence/SPLIT/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png   2048 x 1024, 17 Hz
    camera/SPLIT/CITY/CITY_SSSSSS_FFFFFF_camera.json                     one for each sequence
    vehicle_sequence/SPLIT/CITY/CITY_SSSSSS_FFFFFF_vehicle.json          the car's speed; optional

A sequence has 30 frames: the one that Cityscapes annotates, the 19 before it and the 10 after it. The camera file is
named after the annotated frame, and so determines where a sequence begins and ends. In some cities SSSSSS counts the
sequences. In others it is one long recording, from which sequences were cut seconds or minutes apart.

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

import os
import re
from dataclasses import dataclass, field

import numpy as np
from path import Path

from files.errors import InputError
from files.text import read_json

SPLITS = ("train", "val", "test")
HEIGHT, WIDTH = 1024, 2048  # pixels, of the images that the camera files are for
_BEFORE, _AFTER = 19, 10  # frames of a sequence before and after the annotated one
_NAME = re.compile(r"(.+)_(\d{6})_(\d{6})_(?:leftImg8bit\.(?:png|jpe?g)|camera\.json|vehicle\.json)")


@dataclass(frozen=True)
class Sequence:
    """The files of 30 frames of video; frames may be missing."""

    city: str
    recording: str  # SSSSSS
    annotated: int  # the frame that the camera file is named after
    camera_file: Path
    images: dict[int, Path] = field(repr=False)  # by frame number, ascending
    vehicle_files: dict[int, Path] = field(repr=False)  # by frame number

    @property
    def name(self) -> str:
        return f"{self.city}_{self.recording}_{self.annotated:06d}"

    @property
    def first(self) -> int:
        """The number of its first frame, even if that is missing."""
        return self.annotated - _BEFORE


def find_sequences(root: Path, splits: tuple[str, ...]) -> tuple[list[Sequence], int]:
    """The sequences of these splits, and the number of images that belong to none.

    Raises:
        InputError: no images, no camera files, or a recording without a camera file.
    """
    images = _package(root, "leftImg8bit_sequence")
    cameras = _package(root, "camera")
    if images is None:
        raise InputError(
            f"{root}: no Cityscapes video in it, expected leftImg8bit_sequence/train/CITY/*_leftImg8bit.png (from "
            "leftImg8bit_sequence_trainvaltest.zip)"
        )
    if cameras is None:
        raise InputError(f"{root}: no folder camera/ (from camera_trainvaltest.zip), which has the camera's K")
    vehicles = _package(root, "vehicle_sequence")
    sequences: list[Sequence] = []
    surplus = 0
    for split in splits:
        if not (images / split).is_dir():
            raise InputError(f"{images / split}: no such folder; choose other splits by --splits")
        for city in sorted(os.listdir(images / split)):
            if city.startswith(".") or os.path.isfile(images / split / city):
                continue
            found, more = _city_sequences(images / split / city, cameras / split / city, vehicles, split)
            sequences += found
            surplus += more
    if not sequences:
        raise InputError(f"{images}: no image of a sequence in {', '.join(splits)}, expected CITY/*_leftImg8bit.png")
    return sequences, surplus


def _package(root: Path, name: str) -> Path | None:
    """The folder of an archive, which may have been unpacked into a folder named after it; None if there is none."""
    if not Path(root).is_dir():
        raise InputError(f"{root}: no such folder")
    for folder in (root / name, root / f"{name}_trainvaltest" / name):
        if folder.is_dir():
            return folder / name if (folder / name).is_dir() else folder
    return None


def _city_sequences(folder: Path, cameras: Path, vehicles: Path | None, split: str) -> tuple[list[Sequence], int]:
    if not folder.is_dir():
        raise InputError(f"{folder}: cannot be opened as a folder (a dangling link?); repair it or remove it")
    camera_files = _by_recording(cameras)
    vehicle_files = {} if vehicles is None else _by_recording(vehicles / split / folder.name)
    sequences = []
    surplus = 0
    for recording, frames in sorted(_by_recording(folder).items()):
        if recording not in camera_files:
            raise InputError(f"{cameras}: no {folder.name}_{recording}_*_camera.json, expected the K of its images")
        left = dict(frames)
        for annotated, camera_file in sorted(camera_files[recording].items()):
            window = range(annotated - _BEFORE, annotated + _AFTER + 1)
            images = {frame: left.pop(frame) for frame in window if frame in left}
            speeds = vehicle_files.get(recording, {})
            of_sequence = {frame: speeds[frame] for frame in window if frame in speeds}
            if images:
                sequences.append(Sequence(folder.name, recording, annotated, camera_file, images, of_sequence))
        surplus += len(left)
    return sequences, surplus


def _by_recording(folder: Path) -> dict[str, dict[int, Path]]:
    """The files of a city by recording and frame number."""
    files: dict[str, dict[int, Path]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        parts = _NAME.fullmatch(name)
        if parts and parts[1] == folder.name:
            files.setdefault(parts[2], {})[int(parts[3])] = folder / name
    return files


def read_camera(file: Path) -> np.ndarray:
    """K of the full images from a camera file: float64 [3, 3]."""
    intrinsic = read_json(file).get("intrinsic")
    if not isinstance(intrinsic, dict):
        raise InputError(f"{file}: no entry 'intrinsic', expected fx, fy, u0, v0 in it")
    fx, fy, u0, v0 = (_number(intrinsic, key, file) for key in ("fx", "fy", "u0", "v0"))
    if not (fx > 0 and fy > 0 and 0 <= u0 < WIDTH and 0 <= v0 < HEIGHT):
        raise InputError(
            f"{file}: fx {fx:g}, fy {fy:g}, u0 {u0:g}, v0 {v0:g}; expected focal lengths above 0 and a centre inside "
            f"{WIDTH} x {HEIGHT} pixels"
        )
    return np.array([[fx, 0, u0], [0, fy, v0], [0, 0, 1]])


def read_speed(file: Path) -> float:
    """The car's speed in m/s from a vehicle file."""
    return _number(read_json(file), "speed", file)


def _number(content: dict, key: str, file: Path) -> float:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e6 < value < 1e6:  # NaN, too
        raise InputError(f"{file}: {key} is {str(value)[:40]}, expected a number")
    return float(value)
