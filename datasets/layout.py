"""Reading and writing the prepared layout on disk.

    root/train.txt, root/val.txt         one scene's name per line
    root/SCENE/0000000.jpg ...           frames, in order of the numbers in their names; numbers may have gaps
    root/SCENE/cam.txt                   K, 3 x 3, in pixels of these images
    root/SCENE/poses.txt    (optional)   one line per frame: 3 x 4, row by row, world_from_camera
    root/SCENE/0000000.npy  (optional)   a frame's depth, float32 [H, W], metres along the axis, 0 = unknown
    root/SCENE/prepared.json (optional)  the record of this project's preparation: frames that were left out, and why
    root/SCENE/camera.json  (optional)   where K comes from: {"source": "guess"}, "fov", "focal",
                                         "calibration", or "self-calibration" with what it is based on

It is the layout of the well-known PyTorch port, whose prepared data can be read.
"""

import io
import os
import posixpath
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
from path import Path

from datasets.layout_hints import explain_missing_list, explain_no_frames, explain_scene_name
from files.atomic import write_bytes, write_json, write_text
from files.errors import InputError
from files.text import read_json, read_lines, read_rows
from files.untrusted import check_pixels, one_line, read_npy, read_npy_header

RECORD_FILE = "prepared.json"  # marks a prepared scene as complete
CAMERA_FILE = "camera.json"
GUESS = "guess"  # the source of a K that nobody has measured
SELF_CALIBRATION = "self-calibration"  # the source of a K that structure from motion has estimated
NO_DEPTH = "no depth: "  # begins the problem of a frame that is there and lacks its depth only
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_NUMBERS = re.compile(r"(^[0-9]+\.[0-9]+$|[0-9]+)")  # a decimal fraction only where it is the whole name: a time


@dataclass(frozen=True)
class Scene:
    """One continuous recording of one camera."""

    folder: Path
    frames: Sequence[Path]  # image files in order of time
    intrinsics: np.ndarray  # float64 [3, 3]
    poses: np.ndarray | None  # float64 [len(frames), 3, 4], world_from_camera, metres
    breaks: tuple[int, ...] = ()  # k: between frames k - 1 and k a frame is missing or damaged; ascending
    guessed: bool = False  # K is a guess (`camera_is_guessed`)

    @property
    def name(self) -> str:
        return str(self.folder.absolute().name)  # also of "scene/" and "."

    def runs(self) -> list["Scene"]:
        """The parts of the scene between its breaks, in which neighbouring frames are neighbours in time."""
        ends = [0, *self.breaks, len(self.frames)]
        return [
            replace(self, frames=self.frames[a:b], poses=None if self.poses is None else self.poses[a:b], breaks=())
            for a, b in pairwise(ends)
        ]


def read_scene_names(file: Path, may_be_empty: bool = False) -> list[str]:
    """The scenes of `train.txt` or `val.txt`, relative to its folder, each once.

    Raises:
        InputError: no such list, or it names no scene (unless it may be empty).
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(explain_missing_list(file))
    names = read_paths(file, file.parent)
    for name in names:
        hint = explain_scene_name(name)
        if hint and not (file.parent / name).is_dir():
            raise InputError(f"{file}: {hint}")
    if not names and not may_be_empty:
        raise InputError(f"{file}: the list is empty, expected the name of a scene on each line")
    return list(dict.fromkeys(names))


def read_paths(file: Path, root: Path) -> list[str]:
    """The paths in a list, one per line, relative to the folder `root`, with slashes: "a/b c.png".

    A path may contain blanks, begin with `./`, have backslashes, or be absolute below `root`. Blank lines and lines
    that begin with # are skipped.

    Raises:
        InputError: a path that leads out of `root`, with its line.
    """
    bases = [posixpath.join(folder, "") for folder in (os.path.abspath(root), os.path.realpath(root))]
    paths = []
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        path = line.strip().replace("\\", "/")
        climbs = ".." in path.split("/")
        path = posixpath.normpath(path)
        for base in bases:
            path = path.removeprefix(base)
        if climbs or path.startswith("/") or "\0" in path:
            raise InputError(f"{file}, line {number}: {line.strip()!r:.100} leads out of its folder ({root})")
        paths.append(path)
    return paths


def read_scene(folder: Path) -> Scene:
    """A scene's files. Its images are not opened. InputError if a file is missing, damaged or of the wrong length."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such scene folder")
    frames = list_frames(folder)
    if not frames:
        raise InputError(explain_no_frames(folder, IMAGE_SUFFIXES))
    poses = None
    if os.path.lexists(folder / "poses.txt"):  # a dangling link is an error, not a scene without poses
        poses = read_rows(folder / "poses.txt", 12).reshape(-1, 3, 4)
        if len(poses) != len(frames):
            raise InputError(
                f"{folder / 'poses.txt'}: {len(poses)} poses for {len(frames)} frames, expected one for each"
            )
    intrinsics, breaks = read_intrinsics(folder / "cam.txt"), _find_breaks(folder, frames)
    return Scene(folder, frames, intrinsics, poses, breaks, camera_is_guessed(folder))


def _find_breaks(folder: Path, frames: list[Path]) -> tuple[int, ...]:
    """The `breaks` of a scene, from the record of its preparation; without a record it has none.

    Numbers are also missing where static frames were left out. There the camera stood, and the scene goes on.
    """
    record = read_record(folder)
    if record is None or not all(frame.stem.isdecimal() for frame in frames):
        return ()
    missing = [int(frame) for frame, problem in record["problems"].items() if not problem.startswith(NO_DEPTH)]
    missing = sorted([*missing, *(first for first, _ in record.get("gaps", []))])
    late = sorted(map(int, record.get("time_gaps", {})))  # frames that come late after the one before
    numbers = [int(frame.stem) for frame in frames]
    before = [bisect_left(missing, number) + bisect_right(late, number) for number in numbers]  # gaps before each frame
    return tuple(k for k in range(1, len(frames)) if before[k] > before[k - 1])


def read_record(folder: Path) -> dict | None:
    """The record of a scene's preparation (`preparation.jobs.SceneJob.finish`); None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    file = Path(folder) / RECORD_FILE
    if not os.path.lexists(file):
        return None
    record = read_json(file)
    if not _is_record(record):
        raise InputError(f"{file}: damaged, expected the record of a preparation; prepare the data again")
    return record


def _is_record(record: dict) -> bool:
    """Whether the content of a record is as `finish` writes it."""

    def numbers(value: Any, count: int | None = None) -> bool:
        return isinstance(value, list) and all(map(_is_frame, value)) and count in (None, len(value))

    def by_frame(value: Any, kind: type) -> bool:
        return isinstance(value, dict) and all(
            len(frame) < 100 and frame.isdecimal() and isinstance(one, kind) for frame, one in value.items()
        )

    gaps = record.get("gaps", [])
    return (
        isinstance(record.get("source"), dict)
        and _is_frame(record.get("frames"))
        and numbers(record.get("static"))
        and by_frame(record.get("problems"), str)
        and by_frame(record.get("time_gaps", {}), float)
        and numbers(record.get("not_opened", []))
        and isinstance(gaps, list)
        and all(numbers(gap, 2) for gap in gaps)
    )


def _is_frame(number: Any) -> bool:
    return type(number) is int and 0 <= number < 10**100  # Python neither prints nor reads numbers of 4301 digits


def list_frames(folder: Path) -> list[Path]:
    """The images of a folder in order of time (`frame_order`).

    A file counts as an image by its name. One that cannot be opened, such as a dangling link, stays in its place:
    reading it fails, and the frames before and after it do not become neighbours. Names that begin with a dot are left
    out: macOS puts a ._0000000.jpg beside each file on a foreign disk.
    """
    names = [name for name in os.listdir(folder) if is_image_name(name)]
    return [Path(folder) / name for name in sorted(names, key=frame_order)]


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def frame_order(name: str) -> tuple:
    """The sorting key that orders frames by the numbers in their names, padded with zeros or not.

    Names are compared piece by piece, digits as numbers and the rest as text: 1.jpg, 2.jpg, 10.jpg; a9.jpg, a10.jpg,
    b1.jpg. Names without digits are ordered as text. A name that is a decimal fraction is a time: 0.5.png comes after
    0.25.png.
    """
    pieces = _NUMBERS.split(os.path.splitext(name)[0])
    return tuple(Decimal(piece) if place % 2 else piece for place, piece in enumerate(pieces)), name


def number_gaps(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last missing number of each gap between ascending numbers: (3, 4) and (6, 8) for 1, 2, 5, 9."""
    return [(before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1]


def describe_gap(first: int, last: int) -> str:
    """A gap in the frames' numbers for a message: "no image 3" or "no images 3 to 7"."""
    return f"no image {first}" if first == last else f"no images {first} to {last}"


def read_intrinsics(file: Path) -> np.ndarray:
    """K of a `cam.txt` in pixels: float64 [3, 3]. InputError unless it is [fx s cx; 0 fy cy; 0 0 1] with fx, fy > 0."""
    rows = read_rows(file, 3)
    if rows.shape != (3, 3):
        raise InputError(f"{file}: {rows.shape[0]} lines of 3 numbers, expected K as 3 x 3")
    if rows[0, 0] <= 0 or rows[1, 1] <= 0:
        raise InputError(f"{file}: focal lengths {rows[0, 0]:g} and {rows[1, 1]:g}, expected both above 0")
    if not np.array_equal(rows[2], [0, 0, 1]) or rows[1, 0] != 0:
        raise InputError(f"{file}: expected K = [fx s cx; 0 fy cy; 0 0 1], got rows {rows.tolist()}")
    return rows


def camera_is_guessed(folder: Path) -> bool:
    """Whether the K of a scene is a guess (`camera.json`), so that it should be learned; False where nothing is said.

    Raises:
        InputError: the file is damaged.
    """
    file = Path(folder) / CAMERA_FILE
    return file.is_file() and read_json(file).get("source") == GUESS


def write_camera_source(folder: Path, camera: dict[str, Any]) -> None:
    """Write `camera.json`: where a scene's K comes from; its "source" is GUESS, SELF_CALIBRATION, "fov", "focal" or
    "calibration"."""
    write_json(Path(folder) / CAMERA_FILE, camera)


def check_intrinsics_fit(intrinsics: np.ndarray, height: int, width: int, file: Path) -> None:
    """InputError unless K's centre lies inside an image of this size (`file` is named in the error)."""
    cx, cy = intrinsics[0, 2], intrinsics[1, 2]
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        raise InputError(
            f"{file}: centre ({cx:g}, {cy:g}) lies outside the {width} x {height} image; is K that of another size?"
        )


def depth_file(frame: Path) -> Path:
    """The file of a frame's depth: 0000000.npy beside 0000000.jpg."""
    return frame.with_suffix(".npy")


def read_depth(file: Path) -> np.ndarray:
    """A stored depth map in metres: float32 [H, W], 0 = unknown.

    Raises:
        InputError: missing, damaged, negative or not finite, or of more than `files.untrusted.MOST_PIXELS`.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        with open(file, "rb") as stream:
            shape, dtype, _ = read_npy_header(stream)
            if len(shape) != 2 or dtype.kind != "f":
                raise ValueError(f"{dtype} {[*shape]}, expected floating-point numbers [H, W]")
            check_pixels(shape[1], shape[0])
            stream.seek(0)
            stored = read_npy(stream, file.size)
    except Exception as error:  # NumPy's parser of headers fails on damage in many ways
        raise InputError(f"{file}: not a readable .npy depth map ({one_line(error)})") from None
    with np.errstate(over="ignore"):  # larger numbers than float32's become infinite, and are refused below
        depth = stored.astype(np.float32, copy=False)
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise InputError(f"{file}: has depths that are negative or not finite, expected metres, 0 = unknown")
    return depth


def write_scene_names(file: Path, names: list[str]) -> None:
    write_text(file, "".join(f"{name}\n" for name in names))


def write_intrinsics(file: Path, intrinsics: np.ndarray) -> None:
    """K as `cam.txt`, in full precision."""
    _write_rows(file, np.asarray(intrinsics).reshape(3, 3))


def write_poses(file: Path, world_from_camera: np.ndarray) -> None:
    """Poses [n, 3, 4] as `poses.txt`: KITTI's 12 numbers a line, in full precision."""
    _write_rows(file, np.asarray(world_from_camera).reshape(-1, 12))


def write_depth(file: Path, depth: np.ndarray) -> None:
    """A depth map [H, W] as float32 `.npy`."""
    content = io.BytesIO()  # np.save into a file hides that the disk is full: it reports fewer bytes written
    np.save(content, np.asarray(depth, dtype=np.float32), allow_pickle=False)
    write_bytes(file, content.getvalue())


def _write_rows(file: Path, rows: np.ndarray) -> None:
    write_text(file, "".join(" ".join(repr(float(value)) for value in row) + "\n" for row in rows))
