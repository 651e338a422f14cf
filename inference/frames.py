"""Frames in: images, folders of images, videos and prepared scenes as clips, read one frame at a time.

A clip is read from its beginning as often as needed, and never held in memory as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from path import Path

from datasets.formats import kitti
from datasets.formats.video import Reading, open_video, read_video
from datasets.layout import (
    IMAGE_SUFFIXES,
    Scene,
    check_intrinsics_fit,
    is_image_name,
    list_frames,
    read_scene,
)
from datasets.layout_hints import explain_no_frames
from files.errors import InputError
from files.images import image_size, read_image
from files.parallel import in_parallel
from files.text import read_rows
from files.untrusted import MOST_PIXELS
from geometry.camera import crop_intrinsics

SMALLEST_SIDE = 8  # pixels of an input's width and height
DEFAULT_FPS = 10.0  # KITTI's, and that of data/prepare_video.py
MARKER = "predict.json"  # the report in the folder of results
_AHEAD = 4  # images that are decoded before they are asked for; one of 8K takes 100 MB


@dataclass(frozen=True)
class Frame:
    """One picture of a clip."""

    name: str  # of the files that are made of it, without a suffix
    time: float  # seconds from the beginning of the input
    image: np.ndarray  # uint8 [H, W, 3], RGB


@dataclass(frozen=True)
class Crop:
    """What is left out of a clip's pictures."""

    margins: tuple[int, int, int, int]  # pixels at the left, top, right and bottom
    size: tuple[int, int]  # (height, width) of the whole pictures
    source: str  # who says so

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: columns left .. right - 1 are kept."""
        left, top, right, bottom = self.margins
        return left, top, self.size[1] - right, self.size[0] - bottom

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        sides = dict(zip(("left", "top", "right", "bottom"), self.margins, strict=True))
        return sides | {"source": self.source}

    def __str__(self) -> str:
        left, top, right, bottom = self.box
        return (
            f"columns {left} to {right - 1}, rows {top} to {bottom - 1} of {self.size[1]} x {self.size[0]} pixels "
            f"({self.source})"
        )


@dataclass
class Clip:
    """Frames of one camera in order of time; or single images, which have no order (`ordered` is False)."""

    name: str  # of the folder that its results go to
    source: Path
    size: tuple[int, int]  # (height, width) of the frames, after `crop`; of single images that of the first
    ordered: bool
    read: Callable[[list[str]], Iterator[Frame]]  # appends a line to the list for what cannot be read
    count: int | None = None  # frames, as far as known without reading them
    intrinsics: np.ndarray | None = None  # K, float64 [3, 3], in pixels of the frames; None: not known
    times_known: bool = False  # False: the times follow from a guessed number of frames per second
    world_from_camera: np.ndarray | None = None  # true poses [F, 3, 4] of a prepared scene
    notes: list[str] = field(default_factory=list)  # what a user should know about how it was read
    other_sizes: tuple[tuple[int, int], ...] = ()  # (height, width) of single images that differ from the first
    prepared: bool = False  # a scene of prepared data
    part: bool = False  # one of several runs of a prepared scene
    crop: Crop | None = None  # of the frames that `read` gives

    @property
    def several_sizes(self) -> bool:
        """Whether the pictures differ in size."""
        return bool(self.other_sizes)

    @property
    def whole(self) -> tuple[int, int]:
        """(height, width) of the pictures before the crop."""
        return self.size if self.crop is None else self.crop.size

    @property
    def offset(self) -> tuple[int, int]:
        """(x, y) of the frames' first pixel in the whole pictures."""
        return (0, 0) if self.crop is None else self.crop.box[:2]


def open_inputs(inputs: list[Path], fps: float | None, workers: int) -> list[Clip]:
    """The clips that the inputs are.

    Args:
        inputs: image files (together one set of single images), folders of images, prepared scenes, videos.
        fps: a video is sampled at so many frames per second, and folders of images are taken to have it;
            None: `DEFAULT_FPS`.
        workers: threads that decode images.

    Raises:
        InputError: an input that cannot be read. Nothing was read but headers.
    """
    clips: list[Clip] = []
    singles = [path for path in inputs if path.is_file() and is_image_name(path.name)]
    if singles:
        clips.append(_images("images", singles[0].parent, singles, workers))
    for path in inputs:
        if path.is_dir():
            clips += _open_folder(path, fps, workers)
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif not is_image_name(path.name):
            clips.append(_open_video(path, fps or DEFAULT_FPS, workers))
    for clip, name in zip(clips, unique_names([clip.name for clip in clips], [MARKER]), strict=True):
        clip.name = name
    return clips


def crop_clip(clip: Clip, crop: Crop) -> None:
    """Leave the margins of a clip's pictures out from now on, with its K.

    Raises:
        InputError: too little is left, or the pictures have several sizes.
    """
    left, top, right, bottom = crop.box
    if clip.several_sizes:
        raise InputError(f"{clip.source}: {crop.source}: pixels of one size, the images have several")
    if min(right - left, bottom - top) < SMALLEST_SIDE:
        shown = f"{max(0, right - left)} x {max(0, bottom - top)} of {crop.size[1]} x {crop.size[0]} pixels"
        raise InputError(f"{clip.source}: {crop.source} leaves {shown}, expected {SMALLEST_SIDE} along each side")
    whole = clip.read

    def read(notes: list[str]) -> Iterator[Frame]:
        for frame in whole(notes):
            yield replace(frame, image=np.ascontiguousarray(frame.image[top:bottom, left:right]))

    clip.read, clip.size, clip.crop = read, (bottom - top, right - left), crop
    if clip.intrinsics is not None:
        clip.intrinsics = crop_intrinsics(torch.from_numpy(clip.intrinsics), left, top).numpy()


def _open_folder(folder: Path, fps: float | None, workers: int) -> list[Clip]:
    """A folder of images as one clip; a prepared scene as one for each of its runs."""
    if not (folder / "cam.txt").is_file():
        return [_open_images(folder, fps, workers)]
    scene = read_scene(folder)
    times = _times_beside(folder, scene.frames) if fps is None else None
    runs = scene.runs()
    if len(runs) == 1:
        return [_open_scene(scene.name, scene, times, fps, workers)]
    clips, first = [], 0
    for number, run in enumerate(runs, 1):
        own = None if times is None else times[first : first + len(run.frames)]
        clips.append(_open_scene(f"{scene.name}_{number}", run, own, fps, workers))
        clips[-1].part = True
        first += len(run.frames)
    return clips


def _open_scene(name: str, scene: Scene, times: list[float] | None, fps: float | None, workers: int) -> Clip:
    clip = _images(name, scene.folder, scene.frames, workers)
    check_intrinsics_fit(scene.intrinsics, *clip.size, scene.folder / "cam.txt")
    clip.intrinsics, clip.world_from_camera, clip.prepared = scene.intrinsics, scene.poses, True
    return _as_film(clip, scene.frames, times, fps, workers)


def _open_images(folder: Path, fps: float | None, workers: int) -> Clip:
    files = list_frames(folder)
    if not files:
        lists = [name for name in ("train.txt", "val.txt") if (folder / name).is_file()]
        if lists:
            raise InputError(f"{folder}: a prepared data set; give the folders of its scenes, which {lists[0]} names")
        raise InputError(explain_no_frames(folder, IMAGE_SUFFIXES))
    name = str(folder.absolute().normpath().name) or "frames"
    times = _times_beside(folder, files) if fps is None else None
    return _as_film(_images(name, folder, files, workers), files, times, fps, workers)


def _images(name: str, source: Path, files: Sequence[Path], workers: int) -> Clip:
    """Images without an order; `_as_film` makes a clip of those that are one."""
    first = _first_size(files)
    return Clip(
        name,
        source,
        first,
        ordered=False,
        read=lambda notes: _read_images(files, [0.0] * len(files), workers, notes),
        count=len(files),
        other_sizes=tuple(sorted({size for size in map(_size_or_none, files) if size not in (first, None)})),
    )


def _as_film(clip: Clip, files: Sequence[Path], times: list[float] | None, fps: float | None, workers: int) -> Clip:
    """The images of a folder as neighbouring frames, unless their sizes differ or there is only one.

    Args:
        times: measured ones, in seconds from the beginning of the input; None: they follow from `fps`.
    """
    if clip.several_sizes:
        sizes = sorted([clip.size, *clip.other_sizes])
        shown = " and ".join(f"{width} x {height}" for height, width in sizes[:2])
        clip.notes.append(f"{clip.source}: images of {shown} pixels: taken as single images, not as a clip")
    if clip.several_sizes or len(files) < 2:
        return clip
    clip.times_known = times is not None
    listed = times if times is not None else [number / (fps or DEFAULT_FPS) for number in range(len(files))]
    clip.ordered = True
    clip.read = lambda notes: _read_images(files, listed, workers, notes)
    return clip


def _size_or_none(file: Path) -> tuple[int, int] | None:
    try:
        return image_size(file)
    except InputError:  # damaged: named when it is to be read
        return None


def _first_size(files: Sequence[Path]) -> tuple[int, int]:
    for file in files:
        size = _size_or_none(file)
        if size is not None:
            _check_size(file, *size)
            return size
    read_image(files[0])  # says what is wrong with it
    raise InputError(f"{files[0]}: no JPEG or PNG header")


def _check_size(file: Path, height: int, width: int) -> None:
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(f"{file}: {width} x {height} pixels, expected {SMALLEST_SIDE} or more along each side")
    if height * width > MOST_PIXELS:
        raise InputError(f"{file}: {width} x {height} pixels, expected at most {MOST_PIXELS}; make it smaller")


def _read_images(files: Sequence[Path], times: list[float], workers: int, notes: list[str]) -> Iterator[Frame]:
    def read(numbered: tuple[Path, str, float]) -> Frame | str:
        file, name, time = numbered
        try:
            image = read_image(file)
            _check_size(file, *image.shape[:2])
        except (InputError, OSError) as error:
            return str(error)
        return Frame(name, time, image)

    names = unique_names([str(file.stem) for file in files])
    for frame in in_parallel(read, zip(files, names, times, strict=True), workers, _AHEAD):
        if isinstance(frame, str):
            notes.append(f"left out: {frame}")
        else:
            yield frame


def _times_beside(folder: Path, files: Sequence[Path]) -> list[float] | None:
    """The times of a folder's images in seconds from the first: times.txt in it or beside it (KITTI odometry), or
    timestamps.txt beside it (KITTI raw). None where there are none, or not as many as images."""
    for file in (folder / "times.txt", folder.parent / "times.txt"):
        if file.is_file():
            times = read_rows(file, 1)[:, 0]
            if len(times) == len(files) and (np.diff(times) > 0).all():
                return (times - times[0]).tolist()
    file = folder.parent / "timestamps.txt"
    if file.is_file() and all(name.stem.isdecimal() for name in files):
        try:
            return kitti.frame_seconds(kitti.read_timestamps(file), [int(name.stem) for name in files], file).tolist()
        except InputError:
            return None
    return None


def _open_video(file: Path, fps: float, workers: int) -> Clip:
    video = open_video(file)
    _check_size(file, video.height, video.width)

    def read(notes: list[str]) -> Iterator[Frame]:
        reading, gaps = Reading(), 0
        images = in_parallel(lambda frame: (frame, frame.image()), read_video(video, fps, reading), workers, _AHEAD)
        for number, (frame, image) in enumerate(images):
            gaps += frame.after_gap
            yield Frame(f"{number:07d}", frame.time, image)
        notes += [f"{file}: {problem}" for problem in reading.problems]
        if gaps:
            notes.append(f"{file}: {gaps} gaps in time; the trajectory goes on across them as if they were short")

    rate = min(fps, video.rate or fps)
    count = None if video.seconds is None else max(1, round(video.seconds * rate))
    clip = Clip(str(file.stem), file, (video.height, video.width), True, read, count, times_known=True)
    clip.notes += video.notes
    return clip


def unique_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, where repeated ones get a number: photo, photo_2. Upper and lower case count as the same, since some
    file systems do not tell them apart.

    Args:
        taken: names that are not to be used, in lower case.
    """
    used, unique = set(taken), []
    for wanted in names:
        name, number = wanted, 2
        while name.lower() in used:
            name, number = f"{wanted}_{number}", number + 1
        used.add(name.lower())
        unique.append(name)
    return unique


def median_step(times: list[float]) -> float:
    """Median time between neighbouring frames in seconds; 1 / `DEFAULT_FPS` for a single one."""
    steps = [after - before for before, after in pairwise(times)]
    return float(np.median(steps)) if steps and np.median(steps) > 0 else 1 / DEFAULT_FPS
