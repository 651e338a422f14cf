"""Cityscapes' video: where its files lie, and a sequence's way to scenes of the prepared layout.

    leftImg8bit_sequence/SPLIT/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png   2048 x 1024, 17 Hz
    camera/SPLIT/CITY/CITY_SSSSSS_FFFFFF_camera.json                     one for each sequence
    vehicle_sequence/SPLIT/CITY/CITY_SSSSSS_FFFFFF_vehicle.json          the car's speed; optional

A sequence is 30 frames around the one that Cityscapes annotates: 19 before it and 10 behind. The camera file has the
annotated frame's number, and so says where a sequence begins and ends. In some cities SSSSSS counts the sequences, in
others it is one long recording that sequences were cut from, seconds or minutes apart.

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

import os
import re
from dataclasses import dataclass, field

import numpy as np
import torch
from path import Path

from datasets.preparation.jobs import Plan, SceneJob, check_aspect
from files.errors import InputError
from files.images import read_image, resize_area
from files.text import read_json
from geometry.camera import scale_intrinsics

SPLITS = ("train", "val", "test")
HEIGHT, WIDTH = 1024, 2048  # of the images that the camera files are for
_BEFORE, _BEHIND = 19, 10  # frames of a sequence around the annotated one
_NAME = re.compile(r"(.+)_(\d{6})_(\d{6})_(?:leftImg8bit\.(?:png|jpg)|camera\.json|vehicle\.json)")


@dataclass(frozen=True)
class Sequence:
    """30 frames of video, or those of them that are there."""

    city: str
    recording: str  # SSSSSS
    annotated: int  # the frame that the camera file is named after
    camera_file: Path
    images: dict[int, Path] = field(repr=False)  # by frame number
    vehicle_files: dict[int, Path] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.city}_{self.recording}_{self.annotated:06d}"

    @property
    def first(self) -> int:
        """The number of its first frame, whether that is there or not."""
        return self.annotated - _BEFORE


def find_sequences(root: Path, splits: tuple[str, ...]) -> tuple[list[Sequence], int]:
    """The sequences of these splits, and the number of images that belong to none.

    Raises:
        InputError: no images or no camera files there, or a recording without a camera file.
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
    without = 0
    for split in splits:
        if not (images / split).is_dir():
            raise InputError(f"{images / split}: no such folder; choose other splits by --splits")
        for city in sorted(folder.name for folder in (images / split).dirs()):
            found, more = _city_sequences(images / split / city, cameras / split / city, vehicles, split)
            sequences += found
            without += more
    if not sequences:
        raise InputError(f"{images}: no image of a sequence in {', '.join(splits)}, expected CITY/*_leftImg8bit.png")
    return sequences, without


def _package(root: Path, name: str) -> Path | None:
    """The folder that a download's archive holds; some unpack each archive into a folder of its own."""
    if not Path(root).is_dir():
        raise InputError(f"{root}: no such folder")
    for folder in (root / name, root / f"{name}_trainvaltest" / name):
        if folder.is_dir():
            return folder / name if (folder / name).is_dir() else folder
    return None


def _city_sequences(folder: Path, cameras: Path, vehicles: Path | None, split: str) -> tuple[list[Sequence], int]:
    camera_files = _by_recording(cameras)
    vehicle_files = {} if vehicles is None else _by_recording(vehicles / split / folder.name)
    sequences = []
    without = 0
    for recording, frames in sorted(_by_recording(folder).items()):
        if recording not in camera_files:
            raise InputError(f"{cameras}: no {folder.name}_{recording}_*_camera.json, expected the K of its images")
        left = dict(frames)
        for annotated, camera_file in sorted(camera_files[recording].items()):
            window = range(annotated - _BEFORE, annotated + _BEHIND + 1)
            images = {frame: left.pop(frame) for frame in window if frame in left}
            speeds = vehicle_files.get(recording, {})
            of_sequence = {frame: speeds[frame] for frame in window if frame in speeds}
            if images:
                sequences.append(Sequence(folder.name, recording, annotated, camera_file, images, of_sequence))
        without += len(left)
    return sequences, without


def _by_recording(folder: Path) -> dict[str, dict[int, Path]]:
    """A city's files by recording and frame."""
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


@dataclass(frozen=True, kw_only=True)
class CityscapesScene(SceneJob):
    """Every n-th frame of a sequence, the bonnet cropped off; `static` is "none", "speed" or "images"."""

    sequence: Sequence = field(repr=False)
    camera: np.ndarray = field(repr=False)  # K of the full images
    every: int
    keep: float  # share of the height, from the top
    min_speed: float  # m/s, for "speed"

    def inputs(self) -> dict[str, dict[int, Path]]:
        return {"images": self.images, "vehicles": self.sequence.vehicle_files}

    def find_frames(self) -> Plan:
        static: set[int] = set()
        problems: dict[int, str] = {}
        for frame in self.images if self.static == "speed" else ():
            file = self.sequence.vehicle_files.get(frame)
            try:
                if file is None:
                    raise InputError(f"{self.sequence.name}: no vehicle file of frame {frame}")
                if abs(read_speed(file)) < self.min_speed:
                    static.add(frame)
            except InputError as error:
                problems[frame] = str(error)
        frames = [frame for frame in self.images if frame not in static and frame not in problems]
        return Plan(frames, static, problems)

    def make_image(self, frame: int) -> np.ndarray:
        image = read_image(self.images[frame])
        check_aspect(image, self.images[frame], HEIGHT, WIDTH)
        kept = max(1, round(self.kept_rows() * image.shape[0] / HEIGHT))
        return resize_area(image[:kept], self.height, self.width)

    def kept_rows(self) -> int:
        """Rows of the full image above the cut."""
        return round(self.keep * HEIGHT)

    def intrinsics(self) -> np.ndarray:
        # What is cut off lies below: the crop leaves K as it is.
        return scale_intrinsics(
            torch.from_numpy(self.camera), self.width / WIDTH, self.height / self.kept_rows()
        ).numpy()

    def finish(self, plan: Plan, problems: dict[int, str]) -> None:
        """As for any scene; but of a sequence with frames missing, only the longest run without a gap is kept."""
        known = {frame for frame in plan.frames if self.image_file(frame).exists()} | plan.static
        runs: list[list[int]] = [[]]
        for frame in range(min(self.images), max(self.images) + 1, self.every):
            if frame in known:
                runs[-1].append(frame)
            else:
                problems.setdefault(frame, f"{self.sequence.name}: no image of frame {frame}")
                runs.append([])
        longest = max(runs, key=len)
        apart = sorted(known.difference(longest))
        self.remove(apart)
        for frame in apart:
            problems[frame] = f"{self.sequence.name}: frame {frame} is cut off by a missing or damaged one"
        super().finish(Plan([frame for frame in plan.frames if frame in longest], plan.static, {}), problems)
