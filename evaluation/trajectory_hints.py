"""Remarks on trajectory files that hold something else than they seem to: another unit of time, another quaternion."""

from collections.abc import Iterable

import numpy as np
from path import Path
from scipy.spatial.transform import Rotation

from evaluation.metrics.trajectory import associate
from geometry.rigid import rotation_angle

_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}  # per second
_SUSPICIOUS_ANGLE = 20.0  # degrees, between the rotations of a trajectory and of the truth
_CLEARLY_BETTER = 4  # times smaller is the angle with the other order of a quaternion


def unit_hint(
    times: np.ndarray, true_times: np.ndarray, files: Iterable[Path | None], largest_difference: float
) -> str:
    """A remark on times that pair with the other file's only when they are read in another unit; empty otherwise.

    Args:
        times, true_times: of the trajectory [F] and of the truth [T], read as seconds, ascending.
        files: the file of each, for the remark.
        largest_difference: seconds, between two poses that are paired.
    """
    for unit, per_second in _UNITS.items():
        read = ((times / per_second, true_times), (times, true_times / per_second))
        for file, pair in zip(files, read, strict=True):
            # Distinct ones: divided by 10^9, all times may lie near one time of the other file.
            count = min(len(np.unique(rows)) for rows in associate(*pair, largest_difference))
            if 2 * count >= min(len(times), len(true_times)):
                return f"; the times of {file} seem to be {unit}, expected seconds ({count} poses would be paired)"
    return ""


def order_hint(predicted: np.ndarray, truth: np.ndarray, files: Iterable[Path | None]) -> str:
    """A remark on quaternions that fit the other file's rotations only when they are read with w first; else empty.

    The angle between neighbouring rotations is the same in both orders. The axis is another one, so that the rotation
    since the first pose, or the direction of travel in the first camera, is far from the truth.

    Args:
        predicted, truth: paired poses, world_from_camera [P, 3, 4], read with w last; each in its own world.
        files: the file of each, for the remark; None for a file without quaternions.
    """
    angle = _turned(predicted, truth)
    if angle < _SUSPICIOUS_ANGLE:
        return ""
    for file, pair in zip(files, ((_with_w_first(predicted), truth), (predicted, _with_w_first(truth))), strict=True):
        if file is not None and _CLEARLY_BETTER * _turned(*pair) < angle:
            return (
                f"; THE QUATERNIONS OF {file} SEEM TO HAVE w FIRST (qw qx qy qz), expected qx qy qz qw: in that order "
                "the rotations of both files agree"
            )
    return ""


def _with_w_first(world_from_camera: np.ndarray) -> np.ndarray:
    """The poses [P, 3, 4] of a file that has qw qx qy qz, from those that were read from it as qx qy qz qw."""
    read = Rotation.from_matrix(world_from_camera[..., :3]).as_quat()
    rotation = Rotation.from_quat(read[:, [1, 2, 3, 0]]).as_matrix()
    return np.concatenate([rotation, world_from_camera[..., 3:]], -1)


def _turned(predicted: np.ndarray, truth: np.ndarray) -> float:
    """How far two trajectories [P, 3, 4] turn apart, seen from their first cameras, in degrees.

    It is the larger of two mean angles: between the rotations since the first pose, and between the directions from the
    first pose to the others (without the nearest ones, whose direction is noise).
    """
    rotation, true_rotation = (poses[:1, :, :3].swapaxes(1, 2) @ poses[..., :3] for poses in (predicted, truth))
    angle = float(np.degrees(rotation_angle(rotation.swapaxes(1, 2) @ true_rotation)).mean())
    moved, truly_moved = ((poses[..., 3] - poses[0, :, 3]) @ poses[0, :, :3] for poses in (predicted, truth))
    distance, true_distance = np.linalg.norm(moved, axis=1), np.linalg.norm(truly_moved, axis=1)
    far = (distance > 0.1 * distance.max()) & (true_distance > 0.1 * true_distance.max())
    if not far.any():
        return angle
    cosine = (moved[far] * truly_moved[far]).sum(1) / (distance[far] * true_distance[far])
    return max(angle, float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean()))
