"""The prepared layout on disk, read and written.

    root/train.txt, root/val.txt         one scene's name a line
    root/SCENE/0000000.jpg ...           frames, in order of their names; numbers may have gaps
    root/SCENE/cam.txt                   K, 3 x 3, in pixels of these images
    root/SCENE/poses.txt    (optional)   a line for each frame: 3 x 4, row by row, world_from_camera
    root/SCENE/0000000.npy  (optional)   a frame's depth, float32 [H, W], metres along the axis, 0 = unknown

It is the layout of the well-known PyTorch port: what that prepared is read as it is.
"""

import io
from dataclasses import dataclass

import numpy as np
from path import Path

from datasets.layout_hints import explain_missing_list, explain_no_frames, explain_scene_name
from files.errors import InputError
from files.text import read_names, read_rows

_LARGEST_DEPTH = 256 * 2**20  # bytes
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Scene:
    """One continuous recording of one camera."""

    folder: Path
    frames: list[Path]  # image files in order of time
    intrinsics: np.ndarray  # float64 [3, 3]
    poses: np.ndarray | None  # float64 [len(frames), 3, 4], world_from_camera, metres

    @property
    def name(self) -> str:
        return str(self.folder.name)


def read_scene_names(file: Path, may_be_empty: bool = False) -> list[str]:
    """The scenes of `train.txt` or `val.txt`; InputError if it names none, unless it may be empty."""
    file = Path(file)
    if not file.is_file():
        raise InputError(explain_missing_list(file))
    names = read_names(file)
    for name in names:
        hint = explain_scene_name(name)
        if hint and not (file.parent / name).is_dir():
            raise InputError(f"{file}: {hint}")
    if not names and not may_be_empty:
        raise InputError(f"{file}: the list is empty, expected the name of a scene on each line")
    return names


def read_scene(folder: Path) -> Scene:
    """A scene's files, without opening its images; InputError where something is missing or does not fit."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such scene folder")
    # What begins with a dot is no frame: macOS puts a ._0000000.jpg beside each file on a foreign disk.
    frames = sorted(
        file for file in folder.files() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not frames:
        raise InputError(explain_no_frames(folder, IMAGE_SUFFIXES))
    poses = None
    if (folder / "poses.txt").exists():
        poses = read_rows(folder / "poses.txt", 12).reshape(-1, 3, 4)
        if len(poses) != len(frames):
            raise InputError(
                f"{folder / 'poses.txt'}: {len(poses)} poses for {len(frames)} frames, expected one for each"
            )
    return Scene(folder, frames, read_intrinsics(folder / "cam.txt"), poses)


def read_intrinsics(file: Path) -> np.ndarray:
    """K of a `cam.txt`: float64 [3, 3]; InputError unless it is 3 x 3 with focal lengths above 0."""
    rows = read_rows(file, 3)
    if rows.shape != (3, 3):
        raise InputError(f"{file}: {rows.shape[0]} lines of 3 numbers, expected K as 3 x 3")
    if rows[0, 0] <= 0 or rows[1, 1] <= 0:
        raise InputError(f"{file}: focal lengths {rows[0, 0]:g} and {rows[1, 1]:g}, expected both above 0")
    if not np.array_equal(rows[2], [0, 0, 1]) or rows[1, 0] != 0:
        raise InputError(f"{file}: expected K = [fx s cx; 0 fy cy; 0 0 1], got rows {rows.tolist()}")
    return rows


def check_intrinsics_fit(intrinsics: np.ndarray, height: int, width: int, file: Path) -> None:
    """InputError unless K's centre lies inside an image of this size (`file` is named in the error)."""
    cx, cy = intrinsics[0, 2], intrinsics[1, 2]
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        raise InputError(
            f"{file}: centre ({cx:g}, {cy:g}) lies outside the {width} x {height} image; is K that of another size?"
        )


def depth_file(frame: Path) -> Path:
    """Where the depth of a frame lies: 0000000.npy beside 0000000.jpg."""
    return frame.with_suffix(".npy")


def read_depth(file: Path) -> np.ndarray:
    """A stored depth map: float32 [H, W], 0 = unknown; InputError if damaged, negative or not finite."""
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file")
    try:
        # Mapped, not read: a damaged header's size then fails on the file's length instead of taking memory.
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        if mapped.nbytes > _LARGEST_DEPTH:
            raise ValueError(f"{mapped.nbytes >> 20} MiB, expected at most {_LARGEST_DEPTH >> 20} MiB")
    except Exception as error:  # a damaged header may fail in numpy's parser in any way
        raise InputError(f"{file}: not a readable .npy array ({error})") from None
    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2 or mapped.dtype.kind != "f":
        raise InputError(f"{file}: expected a floating-point [H, W] array")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        depth = np.array(mapped, dtype=np.float32)
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
    part = Path(f"{file}.part")
    content = io.BytesIO()  # np.save into a file would not say that the disk is full, only that fewer were written
    np.save(content, np.asarray(depth, dtype=np.float32), allow_pickle=False)
    part.write_bytes(content.getvalue())
    part.rename(file)


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all: under a temporary name first, then renamed."""
    part = Path(f"{file}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.rename(file)
    except OSError:  # no room, perhaps: what was begun goes
        part.unlink_p()
        raise


def _write_rows(file: Path, rows: np.ndarray) -> None:
    write_text(file, "".join(" ".join(repr(float(value)) for value in row) + "\n" for row in rows))
