"""Trajectory files: KITTI's 12 numbers a line, and TUM's `time x y z qx qy qz qw`. evo reads both.

`layout.write_poses` writes KITTI's form.
"""

from dataclasses import dataclass

import numpy as np
from path import Path
from scipy.spatial.transform import Rotation

from files.atomic import write_text
from files.errors import InputError
from files.text import parse_numbers, read_lines, read_rows
from geometry.rigid import FARTHEST, is_rotation

KITTI_COLUMNS, TUM_COLUMNS = 12, 8
_QUATERNION_TOLERANCE = 1e-2  # The largest deviation of a quaternion's norm from 1. Files with a few digits stay below.


@dataclass(frozen=True)
class Trajectory:
    """A camera's poses from a file."""

    file: Path
    world_from_camera: np.ndarray  # float64 [F, 3, 4]
    times: np.ndarray | None  # float64 [F], seconds, ascending; None: the file has none
    lines: np.ndarray  # int [F], the line of each pose in the file, from 1


def read_trajectory(file: Path) -> Trajectory:
    """A trajectory in either format, which the count of numbers in its first line determines.

    Lines that begin with # are comments, as in evo. Blank lines are allowed at the end.

    Raises:
        InputError, with file and line: not 12 or 8 numbers, a number that is not finite, a 3 x 3 part that is not a
        rotation, a quaternion whose norm is not 1, times that do not ascend.
    """
    lines = read_lines(file)
    while lines and not lines[-1].strip():
        lines.pop()
    kept = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith("#")]
    if not kept:
        raise InputError(f"{file}: no poses, expected 12 numbers a line (KITTI) or 8 (TUM: time x y z qx qy qz qw)")
    columns = _count_columns(kept[0][1], f"{file}, line {kept[0][0]}")
    rows = np.array([parse_numbers(line, columns, f"{file}, line {number}") for number, line in kept])
    numbers = np.array([number for number, _ in kept])
    if columns == KITTI_COLUMNS:
        poses = rows.reshape(-1, 3, 4)
        _check_positions(poses[..., 3], file, numbers)
        _check(is_rotation(poses[..., :3]), file, numbers, "the 3 x 3 part is no rotation")
        return Trajectory(Path(file), poses, None, numbers)
    _check_positions(rows[:, 1:4], file, numbers)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows[:, 4:], axis=1)
    _check(np.abs(lengths - 1) < _QUATERNION_TOLERANCE, file, numbers, "the quaternion's length is not 1")
    ascending = np.concatenate([[True], np.diff(rows[:, 0]) > 0])
    _check(ascending, file, numbers, "the time is not later than the line before's")
    rotation = Rotation.from_quat(rows[:, 4:]).as_matrix()
    return Trajectory(Path(file), np.concatenate([rotation, rows[:, 1:4, None]], -1), rows[:, 0], numbers)


def _count_columns(line: str, where: str) -> int:
    """The count of numbers in a trajectory's first line: 12 or 8. InputError, which `where` begins, for other lines."""
    words = line.split()
    forms = "12 (KITTI) or 8 (TUM: time x y z qx qy qz qw)"
    for separator, name in ((",", "commas"), (";", "semicolons")):
        if separator in line:
            raise InputError(f"{where}: {name} between the numbers, expected blanks: {forms}; # begins a header line")
    if words and not _is_number(words[0]):
        raise InputError(f"{where}: got {words[0][:40]!r}, expected numbers: {forms}; # begins a header line")
    if len(words) not in (KITTI_COLUMNS, TUM_COLUMNS):
        raise InputError(f"{where}: got {len(words)} numbers, expected {forms}")
    return len(words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_frame_times(file: Path, count: int) -> np.ndarray:
    """times.txt of KITTI odometry, seconds: float64 [count]; InputError unless it has `count` ascending times."""
    times = read_rows(file, 1)[:, 0]
    if len(times) != count:
        raise InputError(f"{file}: {len(times)} times, expected {count}, one for each pose")
    _check(
        np.concatenate([[True], np.diff(times) > 0]), file, np.arange(count) + 1, "the time is not later than before"
    )
    return times


def write_tum_trajectory(file: Path, times: np.ndarray, world_from_camera: np.ndarray) -> None:
    """Write times [F] and poses [F, 3, 4] as `time x y z qx qy qz qw` in full precision, whole or not at all."""
    quaternion = Rotation.from_matrix(world_from_camera[..., :3]).as_quat()
    rows = np.concatenate([times[:, None], world_from_camera[..., 3], quaternion], 1)
    write_text(file, "".join(" ".join(map(repr, row)) + "\n" for row in rows.tolist()))


def _check_positions(positions: np.ndarray, file: Path, numbers: np.ndarray) -> None:
    _check((np.abs(positions) < FARTHEST).all(1), file, numbers, "a position farther than 1e12 from the origin")


def _check(good: np.ndarray, file: Path, numbers: np.ndarray, problem: str) -> None:
    if not good.all():
        raise InputError(f"{file}, line {numbers[np.argmin(good)]}: {problem}")
