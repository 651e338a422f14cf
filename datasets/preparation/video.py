"""Preparation of videos and image folders: from each, scenes of the prepared layout in one pass over its frames.

Threads convert, undistort, crop and resize the frames. In order of time each is then left out (black, a repeated
picture, a standing camera) or written. A cut, a gap in time and black frames begin a new scene. The files lie in
NAME.part until the input has ended, and are then divided by time: the end is for validation, and a gap before it is
left out. The record inputs/NAME.json is written last; without it the input is prepared again.
"""

import io
import json
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from path import Path
from PIL import Image, ImageDraw

from datasets.formats.video import Reading
from datasets.input_views import RECORDS
from datasets.layout import RECORD_FILE, write_camera_source, write_intrinsics, write_poses
from datasets.preparation.cuts import is_cut
from datasets.preparation.jobs import SHORTEST_SCENE
from datasets.preparation.static_frames import StandingCamera, small_grey
from datasets.preparation.still_borders import Borders, StillBorders, borders_of
from datasets.preparation.video_inputs import Input
from datasets.preparation.view import View, make_view
from files.atomic import write_bytes, write_json, write_text
from files.errors import InputError
from files.images import JPEG_QUALITY, write_jpeg
from files.parallel import in_parallel
from files.text import read_json
from geometry.rigid import relative_to_first, to_3x4

_BLACK_FRAME = 24  # grey levels: a frame with 99 % of its pixels below it is black
_BLANK = 8  # grey levels between the darkest and the brightest percent: a frame with less shows nothing
_FRAMES_IN_FLIGHT = 2**26  # pixels of frames that wait for a thread, about
_LARGEST_GAP = 0.1  # share of an input's frames that the gap before validation may take

REASONS = BLACK, REPEATED, STATIC, DAMAGED, SHORT, GAP = "black", "repeated", "static", "damaged", "short", "gap"


class Place(NamedTuple):
    """When and where a frame was taken."""

    time: float  # seconds from the beginning of the input
    world_from_camera: np.ndarray | None  # [4, 4], where the input has poses


@dataclass(frozen=True)
class PreparedFrame:
    """A frame on its way to the disk."""

    number: int
    place: Place
    after_gap: bool
    image: np.ndarray = field(repr=False)  # uint8 [height, width, 3]
    small: np.ndarray = field(repr=False)  # `small_grey`
    jpeg: bytes = field(repr=False)
    problem: str | None = None


def prepare_frame(view: View, frame: Any) -> PreparedFrame:
    """The prepared image of a frame; one that is damaged has a problem in place of it."""
    place = Place(frame.time, frame.pose)
    try:
        image = view.image(frame.image())
    except (InputError, OSError) as error:
        nothing = np.zeros((0, 0))
        return PreparedFrame(frame.number, place, frame.after_gap, nothing, nothing, b"", str(error))
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=JPEG_QUALITY)
    return PreparedFrame(frame.number, place, frame.after_gap, image, small_grey(image), content.getvalue())


class FrameSorter:
    """Decides in order of time which frames stay, and where a new part begins."""

    def __init__(self, leave_out_static: bool) -> None:
        self._leave_out_static = leave_out_static
        self._standing = StandingCamera()
        self._before: PreparedFrame | None = None  # the last one that shows something
        self._begins = True
        self.cuts = 0

    def sort(self, frame: PreparedFrame) -> tuple[str | None, bool]:
        """(why the frame is left out, None if it stays; whether the frames before it are no neighbours)."""
        self._begins |= frame.after_gap
        if frame.problem is not None or is_blank(frame.small):
            self._begins = True
            return (DAMAGED if frame.problem is not None else BLACK), True
        before, self._before = self._before, frame
        if before is not None:
            if np.array_equal(before.image, frame.image):
                return REPEATED, self._begins
            if not self._begins and is_cut(before.small, frame.small):
                self._begins = True
                self.cuts += 1
        if self._begins:
            self._standing = StandingCamera()
        stands = self._standing.stands(frame.small)
        begins, self._begins = self._begins, False
        return (STATIC if stands and self._leave_out_static else None), begins


def is_blank(small: np.ndarray) -> bool:
    """Whether a `small_grey` image is black, or of one colour."""
    low, high = np.quantile(small, [0.01, 0.99])
    return bool(high < _BLACK_FRAME or high - low < _BLANK)


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """Makes the scenes of one input."""

    name: str  # scenes are called NAME_00, NAME_01, ...
    source: Input
    root: Path  # the prepared data set
    view: View  # before it is resized
    width: int  # of the prepared images
    height: int
    auto_crop: bool  # leave out the borders that are the same in all frames
    borders: Borders | None = None  # where they are known already
    camera: dict[str, Any]  # for camera.json
    fps: float
    leave_out_static: bool
    val_fraction: float
    val_gap: float  # seconds
    threads: int  # of the decoder, and for the conversion

    @property
    def looks_for_borders(self) -> bool:
        return self.auto_crop and self.borders is None

    @property
    def staging(self) -> Path:
        return self.root / f"{self.name}.part"

    def run(self, count: Callable[[int], None], stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Prepare the input; returns its record, which is on the disk.

        Args:
            count: called with the number of frames that are done since the last call.
            stopped: asked after each frame; the staging folder is removed and KeyboardInterrupt raised.
        """
        clear(self.root, self.name)
        self.staging.makedirs_p()
        view, crop = self._choose_view(count, stopped)
        reading, borders = Reading(), StillBorders()
        sorter = FrameSorter(self.leave_out_static)
        left_out: dict[int, str] = {}  # why, by frame
        kept: dict[int, Place] = {}
        parts: list[list[int]] = []
        problems: list[str] = []
        for frame in self._frames(view, reading):
            why, begins = sorter.sort(frame)
            if begins and why is None:
                parts.append([])
            if why is None:
                write_bytes(self.staging / file_name(frame.number), frame.jpeg)
                parts[-1].append(frame.number)
                kept[frame.number] = frame.place
                if len(parts[-1]) % 5 == 1:
                    borders.add(frame.image)
            else:
                left_out[frame.number] = why
                problems += [frame.problem] if frame.problem is not None else []
            count(1)
            self._check(stopped)
        scenes = self._divide(parts, left_out)
        static = sorted(number for number, why in left_out.items() if why == STATIC)
        for scene in scenes:
            self._write_scene(scene, view, static, kept)
        shutil.rmtree(self.staging)
        remaining = borders.find()
        counts = Counter(left_out.values())
        record = {
            "path": str(self.source.path.absolute()),
            "fingerprint": self.source.fingerprint(),
            "input": self.source.describe(),
            "whole": list(self.source.size),
            "size": [view.width, view.height],
            "box": list(view.box),
            "crop": crop,
            "camera": self.camera,
            "decoded": reading.decoded,
            "left_out": {why: counts[why] for why in REASONS if counts[why]},
            "undecodable": reading.damaged,
            "cuts": sorter.cuts,
            "problems": [*reading.problems, *problems[:20]],
            "still_borders": str(remaining) if any(remaining.margins) else None,
            "scenes": [scene.plain() for scene in scenes],
        }
        write_json(record_file(self.root, self.name), record)
        return record

    def _choose_view(self, count: Callable[[int], None], stopped: Callable[[], bool]) -> tuple[View, str | None]:
        """The view of the prepared images, and what was cropped; writes the picture that shows the crop."""
        view, crop = self.view, None
        if self.auto_crop:
            borders = self.borders
            if borders is None:
                borders = find_borders(self.source, view, self.fps, self.threads, count, lambda: self._check(stopped))
            view, crop = make_view(view.calibration, borders.margins), str(borders)
        final = view.resized(self.width, self.height)
        whole = make_view(view.calibration)
        if view.box != whole.box or self.auto_crop:
            draw_crop(self.source, whole, final, self.fps, self.root / f"crop_{self.name}.jpg")
        return final, crop

    def _check(self, stopped: Callable[[], bool]) -> None:
        if stopped():
            shutil.rmtree(self.staging, ignore_errors=True)
            raise KeyboardInterrupt

    def _frames(self, view: View, reading: Reading) -> Iterator[PreparedFrame]:
        pixels = self.source.size[0] * self.source.size[1]
        ahead = max(1, min(4 * self.threads, _FRAMES_IN_FLIGHT // pixels))
        frames = self.source.frames(self.fps, reading, self.threads)
        yield from in_parallel(partial(prepare_frame, view), frames, self.threads, ahead)

    def _divide(self, parts: list[list[int]], left_out: dict[int, str]) -> list["ScenePart"]:
        """The scenes of the parts: the last frames are for validation, after a gap; short scenes are left out."""
        training, gap, validation = divide_by_time(parts, self.val_fraction, round(self.val_gap * self.fps))
        left_out |= dict.fromkeys(gap, GAP)
        scenes: list[ScenePart] = []
        for frames, scene_list in [*((p, "train.txt") for p in training), *((p, "val.txt") for p in validation)]:
            if len(frames) < SHORTEST_SCENE:
                left_out |= dict.fromkeys(frames, SHORT)
            else:
                scenes.append(ScenePart(f"{self.name}_{len(scenes):02d}", scene_list, frames))
        return scenes

    def _write_scene(self, scene: "ScenePart", view: View, static: list[int], kept: dict[int, Place]) -> None:
        """Move a scene's frames to their folder and write what belongs to them.

        Args:
            static: all static frames of the input, ascending.
        """
        folder = self.root / scene.name
        folder.makedirs_p()
        for number in scene.frames:
            (self.staging / file_name(number)).rename(folder / file_name(number))
        poses = [pose for number in scene.frames if (pose := kept[number].world_from_camera) is not None]
        if len(poses) == len(scene.frames):
            write_poses(folder / "poses.txt", to_3x4(relative_to_first(np.stack(poses))))
        if self.source.times_known:
            write_text(folder / "times.txt", "".join(f"{kept[number].time:.6f}\n" for number in scene.frames))
        write_intrinsics(folder / "cam.txt", view.intrinsics())
        write_camera_source(folder, self.camera)
        within = static[bisect_left(static, scene.frames[0]) : bisect_left(static, scene.frames[-1])]
        record = {"source": {"images": len(scene.frames)}, "frames": len(scene.frames), "static": within}
        write_text(folder / RECORD_FILE, json.dumps(record | {"problems": {}, "not_opened": [], "gaps": []}) + "\n")


@dataclass(frozen=True)
class ScenePart:
    """The frames of a scene to be."""

    name: str
    scene_list: str  # train.txt or val.txt
    frames: list[int]

    def plain(self) -> dict[str, Any]:
        """For the record."""
        first, last = self.frames[0], self.frames[-1]
        return {"name": self.name, "list": self.scene_list, "frames": len(self.frames), "first": first, "last": last}


def find_borders(
    source: Input,
    view: View,
    fps: float,
    threads: int,
    count: Callable[[int], None] = lambda frames: None,
    check: Callable[[], None] = lambda: None,
) -> Borders:
    """The borders of the undistorted picture that are the same in all frames: one pass over the input.

    Args:
        view: all of the picture.
        count: called for each frame.
        check: called for each frame; may raise.
    """

    def pictures() -> Iterator[np.ndarray | None]:
        for frame in source.frames(fps, Reading(), threads):
            count(1)
            check()
            try:
                yield view.cropped(frame.image())
            except (InputError, OSError):
                yield None  # named when the frame is prepared

    return borders_of(pictures(), source.expected(fps))


def draw_crop(source: Input, whole: View, view: View, fps: float, file: Path) -> None:
    """Write a picture of the first frame that can be read: what is cut off is dark, what is kept has a frame.

    Nothing is written where no frame can be read.
    """
    picture = None
    for frame in source.frames(fps, Reading(), 1):
        try:
            picture = whole.cropped(frame.image())
            break
        except (InputError, OSError):
            continue  # named when the frame is prepared
    if picture is None:
        return
    left, top, right, bottom = view.box
    shown = picture // 3
    shown[top:bottom, left:right] = picture[top:bottom, left:right]
    image = Image.fromarray(np.ascontiguousarray(shown))
    line = max(1, image.width // 400)
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=(255, 200, 0), width=line)
    write_jpeg(file, np.asarray(image))


def divide_by_time(
    parts: list[list[int]], val_fraction: float, gap: int
) -> tuple[list[list[int]], list[int], list[list[int]]]:
    """(parts for training, frames of the gap, parts for validation) of the frames of an input.

    Args:
        parts: the numbers of frames, ascending; frames of one part are neighbours.
        val_fraction: share of the frames at the end that is for validation.
        gap: numbers between the last training frame and the first validation frame. It takes at most a tenth of the
            frames.
    """
    frames = [number for part in parts for number in part]
    count = round(val_fraction * len(frames))
    if count < SHORTEST_SCENE or len(frames) - count < SHORTEST_SCENE:
        return parts, [], []
    first = frames[-count]
    most = int(_LARGEST_GAP * len(frames))
    between = [number for number in frames if first - gap <= number < first][-most:] if most else []
    start = between[0] if between else first
    training = [[number for number in part if number < start] for part in parts]
    validation = [[number for number in part if number >= first] for part in parts]
    return [part for part in training if part], between, [part for part in validation if part]


def file_name(number: int) -> str:
    return f"{number:07d}.jpg"


def record_file(root: Path, name: str) -> Path:
    return root / RECORDS / f"{name}.json"


def read_records(root: Path) -> dict[str, dict[str, Any]]:
    """The records of the inputs that were prepared, by name; one that is damaged counts as missing."""
    records = {}
    for file in sorted((root / RECORDS).files("*.json")) if (root / RECORDS).is_dir() else []:
        try:
            record = read_json(file)
        except InputError:
            continue
        scenes = record.get("scenes")
        if isinstance(scenes, list) and all(isinstance(scene, dict) and "name" in scene for scene in scenes):
            records[str(file.stem)] = record
    return records


def is_complete(root: Path, record: dict[str, Any], source: Input) -> bool:
    """Whether an input's scenes are there, and the input has not changed since."""

    def whole(scene: dict[str, Any]) -> bool:
        folder = root / scene["name"]
        return (folder / RECORD_FILE).is_file() and len(folder.files("*.jpg")) == scene.get("frames")

    return record.get("fingerprint") == source.fingerprint() and all(map(whole, record["scenes"]))


def clear(root: Path, name: str) -> None:
    """Remove what an earlier, unfinished preparation of an input has left, its record first."""
    record_file(root, name).parent.makedirs_p()
    record_file(root, name).remove_p()
    shutil.rmtree(root / f"{name}.part", ignore_errors=True)
    for folder in root.dirs(f"{name}_*"):
        if folder.name.removeprefix(f"{name}_").isdecimal():
            shutil.rmtree(folder)
