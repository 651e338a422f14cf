"""What a user gives to prepare: videos, and folders of images or of videos."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from path import Path

from datasets.formats.camera_files import Calibration
from datasets.formats.image_lists import Recording, find_recording, read_colmap
from datasets.formats.video import VIDEO_SUFFIXES, Reading, Video, nearest_to_ticks, open_video, read_video
from datasets.layout import frame_order, is_image_name, list_frames
from files.errors import InputError
from files.images import image_size, read_image

_GAP = 2.5  # intervals without an image are a gap


@dataclass(frozen=True)
class ImageFile:
    """An image of a sequence, with the interface of `formats.video.VideoFrame`."""

    number: int
    time: float  # seconds
    after_gap: bool
    file: Path
    size: tuple[int, int]  # (width, height) that it must have
    pose: np.ndarray | None = field(default=None, repr=False)  # world_from_camera [4, 4]

    def image(self) -> np.ndarray:
        """uint8 [H, W, 3]. InputError if it is damaged or of another size."""
        image = read_image(self.file)
        if image.shape[1::-1] != self.size:
            raise InputError(
                f"{self.file}: {image.shape[1]} x {image.shape[0]} pixels, expected {self.size[0]} x {self.size[1]}"
            )
        return image


@dataclass(frozen=True, kw_only=True)
class VideoInput:
    """A video file."""

    video: Video = field(repr=False)

    calibration: Calibration | None = None  # a video file has none

    @property
    def path(self) -> Path:
        return self.video.file

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its frames."""
        return self.video.width, self.video.height

    @property
    def times_known(self) -> bool:
        """Whether the frames' times are measured ones."""
        return True

    def describe(self) -> str:
        return str(self.video)

    def notes(self, fps: float) -> list[str]:
        """What a user should know."""
        notes = list(self.video.notes)
        rate = self.video.rate
        if rate and rate > fps and abs(rate / fps - round(rate / fps)) > 0.02:
            even = rate / max(1, round(rate / fps))
            notes.append(
                f"{rate:.4g} frames/s are no multiple of {fps:g}, so the time from frame to frame varies; "
                f"--fps {even:.4g} takes them evenly"
            )
        return notes

    def expected(self, fps: float) -> int:
        """About how many frames there are to prepare; for the progress bar."""
        rate = min(fps, self.video.rate or fps)
        return max(1, round((self.video.seconds or 0) * rate))

    def frames(self, fps: float, reading: Reading, threads: int) -> Iterator:
        yield from read_video(self.video, fps, reading, threads)

    def fingerprint(self) -> str:
        """Changes when the file does."""
        return _fingerprint([self.path])


@dataclass(frozen=True, kw_only=True)
class FolderInput:
    """Images of one size in a folder, in order of the numbers in their names, or of their times.

    Poses and the camera are those that another program's files state (COLMAP, TUM RGB-D, EuRoC).
    """

    path: Path
    images: list[Path] = field(repr=False)
    size: tuple[int, int]
    every: int = 1  # take every N-th image
    times: list[float] | None = field(default=None, repr=False)  # seconds
    world_from_camera: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # [4, 4], by an image's path
    calibration: Calibration | None = None
    kind: str = "images"

    @property
    def times_known(self) -> bool:
        """False for numbered images: their times follow from --fps alone."""
        return self.times is not None

    def describe(self) -> str:
        return f"{self.size[0]} x {self.size[1]}, {len(self.images)} {self.kind}"

    def notes(self, fps: float) -> list[str]:
        return []

    def expected(self, fps: float) -> int:
        if self.times is not None:
            return min(len(self.images), round((self.times[-1] - self.times[0]) * fps) + 1)
        return -(-len(self.images) // self.every)

    def frames(self, fps: float, reading: Reading, threads: int) -> Iterator:
        """As `read_video`. Images without times have one number each.

        Where the input has poses, images without one are left out: poses.txt has a line for each frame.
        """
        after_gap, without_pose = False, 0
        for number, time, gap, file in self._places(fps):
            reading.seconds = time
            after_gap |= gap
            pose = self.world_from_camera.get(str(file))
            if pose is None and self.world_from_camera:
                after_gap, without_pose = True, without_pose + 1
                continue
            reading.decoded += 1
            yield ImageFile(number, time, after_gap, file, self.size, pose)
            after_gap = False
        if without_pose:
            reading.add(f"{without_pose} images without a pose are left out")

    def _places(self, fps: float) -> Iterator[tuple[int, float, bool, Path]]:
        """(number, seconds, whether it is after a gap, file) of the images to prepare."""
        if self.times is None:
            for number, file in enumerate(self.images[:: self.every]):
                yield number, number / fps, False, file
            return
        interval = max(1 / fps, float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0)
        timed = ((time - self.times[0], file) for time, file in zip(self.times, self.images, strict=True))
        before: float | None = None
        for number, time, file in nearest_to_ticks(timed, fps):
            yield number, time, before is not None and time - before > _GAP * interval, file
            before = time

    def fingerprint(self) -> str:
        """Changes when an image does, or the times, poses or camera that another program's files state."""
        stated = b"" if self.times is None else np.array(self.times).tobytes()
        if self.world_from_camera:
            nowhere = np.full((4, 4), np.nan)
            stated += b"".join(self.world_from_camera.get(str(file), nowhere).tobytes() for file in self.images)
        camera = self.calibration
        if camera is not None:
            numbers = camera.intrinsics.tolist(), camera.distortion.tolist()
            stated += f"{camera.model} {camera.size} {numbers}".encode()
        return _fingerprint(self.images, stated)


Input = VideoInput | FolderInput


def find_inputs(paths: list[Path], every: int = 1, from_colmap: bool = False) -> tuple[list[Input], list[str]]:
    """The videos and image folders that are given, each once, and a line for each one that cannot be used.

    A folder of images is one input, also in the layout of TUM RGB-D or EuRoC. Of a folder of videos, and of one with
    such folders, each is one.

    Args:
        every: take every N-th image of folders without times.
        from_colmap: the paths are folders of COLMAP, with images/ and sparse/0/.

    Raises:
        InputError: not one of them can be used.
    """
    inputs: list[Input] = []
    problems: list[str] = []
    for path in paths:
        try:
            found, skipped = ([open_colmap(path, every)], []) if from_colmap else _of_path(path, every)
        except (InputError, OSError) as error:
            problems.append(str(error))
        else:
            inputs += found
            problems += skipped
    if not inputs:
        raise InputError("; ".join(problems[:3]) or "no video or folder of images is given")
    once = {str(source.path.absolute()): source for source in inputs}  # VIDEOS VIDEOS/drive.mp4 gives one twice
    return list(once.values()), problems


def _of_path(path: Path, every: int) -> tuple[list[Input], list[str]]:
    if not path.is_dir():
        return [open_input(path)], []
    recording = find_recording(path)
    if recording is not None:
        return [open_recording(path, recording)], []
    if any(is_image_name(name) for name in os.listdir(path)):
        return [open_folder(path, every)], []
    inputs: list[Input] = []
    problems = []
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    wanted = [path / name for name in names if (path / name).is_dir() or name.lower().endswith(VIDEO_SUFFIXES)]
    for entry in wanted:
        try:
            recording = find_recording(entry) if entry.is_dir() else None
            if recording is not None:
                inputs.append(open_recording(entry, recording))
            elif not entry.is_dir():
                inputs.append(open_input(entry))
            elif any(is_image_name(name) for name in os.listdir(entry)):
                inputs.append(open_folder(entry, every))
        except (InputError, OSError) as error:
            problems.append(str(error))
    if not inputs and not problems:
        raise InputError(f"{path}: no video and no JPEG or PNG image in it")
    return inputs, problems


def open_input(file: Path) -> VideoInput:
    """A video file. InputError if it has no frame that can be used."""
    video = open_video(file)
    if is_image_name(file.name):
        raise InputError(f"{file}: an image, expected a video, or the folder of the images")
    return VideoInput(video=video)


def open_folder(path: Path, every: int = 1) -> FolderInput:
    """A folder of images.

    Raises:
        InputError: images of several sizes, or none that can be read.
    """
    images = list_frames(path)
    return FolderInput(path=path, images=images, size=common_size(path, images), every=every)


def open_recording(path: Path, recording: Recording, every: int = 1) -> FolderInput:
    """The images that another program's files list, with their times, poses and camera.

    Raises:
        InputError: images of several sizes, or none that can be read.
    """
    return FolderInput(
        path=path,
        images=recording.images,
        size=common_size(path, recording.images),
        every=every,
        times=recording.times,
        world_from_camera=recording.poses,
        calibration=recording.calibration,
        kind=f"images of {recording.kind}",
    )


def open_colmap(path: Path, every: int = 1) -> FolderInput:
    """The images of a COLMAP model, with its camera and poses. Images without a pose are left out.

    Raises:
        InputError: no model, images of several cameras, or none that can be read.
    """
    recording = read_colmap(path)
    images = {*recording.images, *(path / "images").walkfiles()} if (path / "images").is_dir() else recording.images
    order = sorted((f for f in images if is_image_name(f.name)), key=lambda file: frame_order(str(file)))
    return open_recording(path, replace(recording, images=order), every)


def common_size(path: Path, images: list[Path]) -> tuple[int, int]:
    """(width, height) of the images, from their headers; InputError if they have several sizes, or none is readable."""
    sizes: dict[tuple[int, int], list[Path]] = {}
    for file in images:
        try:
            sizes.setdefault(image_size(file), []).append(file)
        except InputError:
            continue  # damaged: named when it is to be read
    if not sizes:
        raise InputError(f"{path}: not one of its {len(images)} images can be read")
    if len(sizes) > 1:
        shown = [f"{w} x {h} ({len(files)}, e.g. {files[0].name})" for (h, w), files in list(sizes.items())[:3]]
        raise InputError(
            f"{path}: images of {len(sizes)} sizes: {', '.join(shown)}; expected one size, put each into its own folder"
        )
    height, width = next(iter(sizes))
    return width, height


def plain_name(path: Path) -> str:
    """A name for the scenes of an input: that of the file or folder, without what a list or a path cannot have."""
    name = re.sub(r"[^\w.+-]+", "_", os.path.basename(os.path.abspath(path)).encode("utf-8", "replace").decode())
    if not os.path.isdir(path):
        name = os.path.splitext(name)[0]
    return name.strip("._-")[:80] or "scene"


def _fingerprint(files: list[Path], stated: bytes = b"") -> str:
    """A digest of the files' names, sizes and times of change, and of what is stated of them."""
    digest = hashlib.sha256()
    for file in files:
        try:
            state = os.stat(file)
            digest.update(f"{file.name!r} {state.st_size} {state.st_mtime_ns}\n".encode("utf-8", "replace"))
        except OSError:
            digest.update(f"{file.name!r} missing\n".encode("utf-8", "replace"))
    digest.update(stated)
    return digest.hexdigest()[:32]
