"""Snippets of a prepared data set: which frames make one, and how one is read."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from path import Path
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.layout import Scene, check_intrinsics_fit, depth_file, read_depth, read_scene, read_scene_names
from files.errors import InputError
from files.images import image_size, read_image
from geometry.camera import intrinsics_from_fov


class DamagedFrame(Exception):
    """A frame that cannot be read; the message is the line that names it."""


class SnippetDataset(Dataset):
    """All runs of `length` neighbouring frames in the scenes of a prepared data set.

    An item is a dict: `frames` uint8 [L, 3, H, W] in order of time (the middle one is the target), `intrinsics`
    float32 [3, 3], `camera`, the number of the scene's camera, `index`, and `damaged`, a line for each file that could
    not be read. A snippet with a damaged image is replaced by the next whole one, so that a batch keeps its size. With
    `ground_truth` the item also has `depth` float32 [H, W] of the target (0 = unknown; all 0 where there is no file)
    and `poses` float64 [L, 3, 4], world_from_camera (NaN where the scene has no poses).

    Scenes whose `cam.txt` hold the same K were recorded by one camera (all images of the set have one size).

    Args:
        root: folder of the prepared data.
        scene_list: `train.txt` or `val.txt`.
        length: frames of a snippet.
        ground_truth: read depth and poses, too.
        fov: horizontal field of view in degrees. K is that of a camera with square pixels and this field of view, and
            `cam.txt` only tells which scenes have the same camera.
    """

    sharded = False  # whether frames come from shards (`datasets.shards`)
    ground_truth = False

    def __init__(
        self, root: Path, scene_list: str, length: int, ground_truth: bool = False, fov: float | None = None
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder, expected a prepared data set (see data/prepare_kitti.py)")
        scenes = [read_scene(root / name) for name in read_scene_names(root / scene_list)]
        self._begin(root / scene_list, scenes, length)
        self.ground_truth = ground_truth
        self._number_cameras(*self._check_sizes(root / scene_list), fov)

    def _begin(self, scene_list: Path, scenes: list[Scene], length: int) -> None:
        """Find the snippets of these scenes; `scene_list` is named in errors."""
        if length < 3 or length % 2 == 0:
            raise InputError(f"snippets of {length} frames, expected an odd number from 3 on: the target is the middle")
        self.length = length
        self.scenes = scenes
        self.runs = [run for scene in scenes for run in scene.runs()]
        counts = [max(0, len(run.frames) - length + 1) for run in self.runs]
        if not any(counts):
            longest = max(self.runs, key=lambda run: len(run.frames))
            raise InputError(
                f"{scene_list}: no snippet of {length} frames: the longest of {len(scenes)} scenes, "
                f"{longest.name}, has {len(longest.frames)}"
            )
        self._ends = np.cumsum(counts)  # number of snippets up to and with each run

    def _number_cameras(self, height: int, width: int, fov: float | None) -> None:
        """Take the size of all frames, and give each camera a number."""
        self.height, self.width = height, width
        self.recorded: list[
            np.ndarray
        ] = []  # the K of each camera in `cam.txt`, float64 [3, 3], by the camera's number
        self._camera = {scene.folder: self._number_camera(scene.intrinsics) for scene in self.scenes}
        self.guess = None if fov is None else intrinsics_from_fov(fov, self.height, self.width).numpy()

    @property
    def cameras(self) -> list[np.ndarray]:
        """The K of each camera in the snippets, float64 [3, 3], by the camera's number."""
        return self.recorded if self.guess is None else [self.guess] * len(self.recorded)

    def scenes_of(self, camera: int) -> list[str]:
        """The names of the scenes that this camera recorded."""
        return [scene.name for scene in self.scenes if self._camera[scene.folder] == camera]

    def number_cameras_like(self, other: "SnippetDataset") -> None:
        """Give each camera the number that it has in another data set, -1 if it is not among the cameras there."""
        numbers = {_key(intrinsics): number for number, intrinsics in enumerate(other.recorded)}
        self._camera = {scene.folder: numbers.get(_key(scene.intrinsics), -1) for scene in self.scenes}
        self.recorded = other.recorded

    def _number_camera(self, intrinsics: np.ndarray) -> int:
        keys = [_key(known) for known in self.recorded]
        if _key(intrinsics) not in keys:
            self.recorded.append(intrinsics)
            return len(keys)
        return keys.index(_key(intrinsics))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def snippet(self, index: int) -> tuple[Scene, int]:
        """A snippet's scene, or the part of it without a break, and its first frame there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        scene = self.runs[number]
        return scene, index - int(self._ends[number]) + max(0, len(scene.frames) - self.length + 1)

    def target_file(self, index: int) -> Path:
        """The image in the middle of a snippet."""
        scene, first = self.snippet(index)
        return scene.frames[first + self.length // 2]

    def __getitem__(self, index: int) -> dict[str, Any]:
        frames = torch.empty(self.length, self.height, self.width, 3, dtype=torch.uint8)
        item = self.read(index, list(frames.numpy()))
        tensors = {name: torch.from_numpy(value) for name, value in item.items() if isinstance(value, np.ndarray)}
        return {"frames": frames.permute(0, 3, 1, 2)} | item | tensors

    def read(
        self, index: int, frames: Sequence[np.ndarray], source: Callable[[Path], np.ndarray] | None = None
    ) -> dict[str, Any]:
        """An item in NumPy and without its frames, which are written to arrays.

        Args:
            frames: uint8 [H, W, 3] for each frame, in order of time.
            source: called in place of `read_frame`; what it returns is written to `frames`.
        """
        damaged: list[str] = []
        for step in range(len(self)):
            number = (index + step) % len(self)
            item = self._read(number, frames, source or self.reader(number), damaged)
            if item is not None:
                return item | {"damaged": damaged}
        raise InputError(f"{self.scenes[0].folder.parent}: not one snippet has all its images whole, e.g. {damaged[0]}")

    def reader(self, index: int) -> Callable[[Path], np.ndarray]:
        """What reads the frames of a snippet."""
        return self.read_frame

    def expect(self, indices: Sequence[int]) -> None:
        """Told of the snippets that are read soon. Files need no preparation."""

    def read_frame(self, file: Path) -> np.ndarray:
        """A frame: uint8 [H, W, 3].

        Raises:
            DamagedFrame: it cannot be read.
            InputError: it has another size.
        """
        return self.decoded(file, partial(read_image, file))

    def decoded(self, file: Path, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The image that `decode` returns of this file, with the errors of `read_frame`."""
        try:
            image = decode()
        except (InputError, OSError) as error:
            raise DamagedFrame(str(error)) from None
        if image.shape[:2] != (self.height, self.width):
            raise InputError(f"{file}: {_size(image.shape[:2])} pixels, expected {_size((self.height, self.width))}")
        return image

    def _read(
        self, index: int, frames: Sequence[np.ndarray], source: Callable[[Path], np.ndarray], damaged: list[str]
    ) -> dict[str, Any] | None:
        scene, first = self.snippet(index)
        files = scene.frames[first : first + self.length]
        for file, frame in zip(files, frames, strict=True):
            try:
                frame[...] = source(file)
            except DamagedFrame as error:
                damaged.append(str(error))
                return None
        item: dict[str, Any] = {
            "intrinsics": (scene.intrinsics if self.guess is None else self.guess).astype(np.float32),
            "camera": self._camera[scene.folder],
            "index": index,
        }
        if self.ground_truth:
            item["depth"] = self._depth(files[self.length // 2], damaged)
            poses = np.full((self.length, 3, 4), np.nan)
            if scene.poses is not None:
                poses = scene.poses[first : first + self.length]
            item["poses"] = poses
        return item

    def _depth(self, frame: Path, damaged: list[str]) -> np.ndarray:
        file = depth_file(frame)
        unknown = np.zeros((self.height, self.width), np.float32)
        if not os.path.lexists(file):
            return unknown
        try:
            depth = read_depth(file)
        except (InputError, OSError) as error:
            damaged.append(str(error))
            return unknown
        if depth.shape != (self.height, self.width):
            damaged.append(f"{file}: depth of {_size(depth.shape)} pixels, expected {_size(unknown.shape)}")
            return unknown
        return depth

    def _check_sizes(self, scene_list: Path) -> tuple[int, int]:
        """The one size (height, width) of all frames, from their headers."""
        first: dict[tuple[int, int], Path] = {}
        bar = tqdm(total=sum(len(scene.frames) for scene in self.scenes), desc="checking frames", leave=False, delay=2)
        for scene in self.scenes:
            for frame in scene.frames:
                with suppress(InputError):  # damaged: named and counted when it is to be read
                    first.setdefault(image_size(frame), frame)
            bar.update(len(scene.frames))
        bar.close()
        if not first:
            raise InputError(f"{scene_list}: not one of the frames of its scenes can be read")
        if len(first) > 1:
            (size, frame), (other_size, other_frame) = list(first.items())[:2]
            raise InputError(
                f"{other_frame}: {_size(other_size)} pixels, but {frame} has {_size(size)}; "
                "expected one size for all frames"
            )
        height, width = next(iter(first))
        for scene in self.scenes:
            check_intrinsics_fit(scene.intrinsics, height, width, scene.folder / "cam.txt")
        return height, width


def _key(intrinsics: np.ndarray) -> tuple[float, ...]:
    return tuple(intrinsics.flatten().tolist())


def _size(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
