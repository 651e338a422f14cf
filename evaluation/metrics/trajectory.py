"""Errors of whole camera trajectories: KITTI's drift over 100 to 800 m, ATE and RPE, and the alignments before them.

A trajectory is `world_from_camera` [F, 3, 4], in any unit and any world. numpy, float64; no files, no network, no loop
over poses. docs/evaluation.md says who publishes which of these figures, and what is odd about them.

Sources: A. Geiger, P. Lenz, R. Urtasun, "Are we ready for autonomous driving? The KITTI vision benchmark suite", CVPR
2012, and its development kit; S. Umeyama, "Least-squares estimation of transformation parameters between two point
patterns", PAMI 1991; J. Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012.
"""

from dataclasses import dataclass

import numpy as np

from files.errors import InputError
from geometry.rigid import (
    FARTHEST,
    compose_motions,
    is_rotation,
    nearest_rotation,
    relative,
    rotation_angle,
    to_homogeneous,
)

ALIGNMENTS = {
    "none": "none",
    "scale": "one scale, from the first camera on",
    "6dof": "6-DoF (rotation and translation)",
    "7dof": "7-DoF (rotation, translation and one scale)",
}
LENGTHS = (100, 200, 300, 400, 500, 600, 700, 800)  # metres, of the segments
_ROUNDING = 1e-13  # share of the largest coordinate below which positions differ by rounding alone
STEP = 10  # frames from the start of one segment to the start of the next: a second


def chain_snippets(first_from_frame: np.ndarray) -> np.ndarray:
    """Overlapping snippets as one trajectory.

    A motion from frame to frame is seen by up to n - 1 snippets. It is their mean (of the translations, and of the
    rotations in the chordal sense), and the motions are composed. The snippets' unit is taken to be the same
    throughout: nothing is fitted, so a scale that drifts from snippet to snippet stays visible in the trajectory.

    Args:
        first_from_frame: [N, n, 3, 4], all snippets of N + n - 1 frames (see `pose_metrics.snippets`), n from 2 on.

    Returns:
        first_from_frame [N + n - 1, 3, 4] of the whole.

    Raises:
        InputError: a pose that is not finite or not a rigid motion (names the snippet's index).
    """
    if first_from_frame.ndim != 4 or first_from_frame.shape[1] < 2 or first_from_frame.shape[2:] != (3, 4):
        raise ValueError(f"first_from_frame: got shape {list(first_from_frame.shape)}, expected [N, n > 1, 3, 4]")
    check_poses(first_from_frame, "snippet")
    count, length = first_from_frame.shape[:2]
    poses = to_homogeneous(first_from_frame)
    previous_from_frame = relative(poses[:, :-1], poses[:, 1:])
    total, seen_by = np.zeros((count + length - 2, 4, 4)), np.zeros((count + length - 2, 1, 1))
    for place in range(length - 1):
        total[place : place + count] += previous_from_frame[:, place]
        seen_by[place : place + count] += 1
    mean = (total / seen_by)[:, :3]
    mean[..., :3] = nearest_rotation(mean[..., :3])
    return compose_motions(mean)


@dataclass(frozen=True)
class Alignment:
    """truth_from_predicted as a similarity: X_truth = scale * rotation @ X_predicted + translation."""

    scale: float
    rotation: np.ndarray  # [3, 3]
    translation: np.ndarray  # [3]

    def apply(self, world_from_camera: np.ndarray) -> np.ndarray:
        """A trajectory [F, 3, 4] in the truth's world."""
        rotation = self.rotation @ world_from_camera[..., :3]
        position = self.scale * world_from_camera[..., 3] @ self.rotation.T + self.translation
        return np.concatenate([rotation, position[..., None]], -1)


def align(truth: np.ndarray, predicted: np.ndarray, kind: str) -> Alignment:
    """What brings a predicted trajectory nearest to the true one, by least squares over the camera positions.

    Args:
        truth, predicted: world_from_camera [F, 3, 4].
        kind: "none"; "scale": the first poses are laid on each other, then all positions are multiplied by
            sum(truth * predicted) / sum(predicted^2), both seen from the first camera, which comes out negative where
            the predicted camera drives backwards; "6dof", "7dof": Umeyama's closed form. A prediction that does not
            move but for rounding has no scale; it gets 0.
    """
    _check_pair(truth, predicted)
    if kind == "none":
        return Alignment(1.0, np.eye(3), np.zeros(3))
    position, true_position = predicted[..., 3], truth[..., 3]
    moving = np.abs(position - position[0]).max() > _ROUNDING * np.abs(position).max()
    if kind == "scale":
        rotation = nearest_rotation(truth[0, :, :3] @ predicted[0, :, :3].T)
        moved, truly_moved = (position - position[0]) @ rotation.T, true_position - true_position[0]
        scale = float((truly_moved * moved).sum() / (moved * moved).sum()) if moving else 0.0
        return Alignment(scale, rotation, true_position[0] - scale * rotation @ position[0])
    if kind not in ALIGNMENTS:
        raise ValueError(f"alignment: got {kind!r}, expected one of {', '.join(ALIGNMENTS)}")
    mean, true_mean = position.mean(0), true_position.mean(0)
    covariance = (true_position - true_mean).T @ (position - mean) / len(position)
    u, spread, v = np.linalg.svd(covariance)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])  # a rotation, never a mirror
    rotation = (u * sign) @ v
    variance = ((position - mean) ** 2).sum(1).mean()
    scale = 1.0 if kind == "6dof" else float((spread * sign).sum() / variance) if moving else 0.0
    return Alignment(scale, rotation, true_mean - scale * rotation @ mean)


@dataclass(frozen=True)
class Segments:
    """Errors of the end pose of each segment of a trajectory, the segments' starts laid on each other."""

    length: np.ndarray  # int [S], metres: one of LENGTHS
    translation: np.ndarray  # float64 [S], as a share of the length
    rotation: np.ndarray  # float64 [S], radians a metre


def segment_errors(truth: np.ndarray, predicted: np.ndarray) -> Segments:
    """KITTI's errors over 100, 200, ..., 800 m of true path, from every tenth frame on.

    As in the development kit: a segment ends with the first frame whose path from the start is longer than the length,
    and its error is divided by the length, not by the path. Empty where the true path is no longer than 100 m.
    """
    _check_pair(truth, predicted)
    true_pose, pose = to_homogeneous(truth), to_homogeneous(predicted)
    path = path_lengths(truth)
    starts = np.arange(0, len(truth), STEP)
    ends = np.searchsorted(path, path[starts][:, None] + LENGTHS, side="right")
    first, length = np.nonzero(ends < len(truth))  # the segments that end before the trajectory does
    start, end = starts[first], ends[first, length]
    true_motion = relative(true_pose[start], true_pose[end])
    error = relative(relative(pose[start], pose[end]), true_motion)
    metres = np.array(LENGTHS)[length]
    return Segments(metres, np.linalg.norm(error[:, :3, 3], axis=1) / metres, published_angle(error) / metres)


def absolute_errors(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Distance of each predicted camera from the true one: [F]. ATE is its root mean square."""
    return np.linalg.norm(predicted[..., 3] - truth[..., 3], axis=-1)


def trajectory_errors(truth: np.ndarray, predicted: np.ndarray, alignment: str) -> dict:
    """All figures of a trajectory after one alignment.

    Args:
        truth: world_from_camera [F, 3, 4], metres.
        predicted: the same frames' poses, in any world and unit.
        alignment: one of ALIGNMENTS.

    Returns:
        `t_err_percent`, `r_err_deg_per_100m`: KITTI's, over all segments of 100 to 800 m (None where there is none);
        `ate_m`: root mean square distance of the positions;
        `rpe_m`, `rpe_deg`: mean error of the motion from frame to frame, by the formulas that are published on KITTI;
        `rpe_rmse_m`, `rpe_rmse_deg`: its root mean square, as evo has it;
        `scale`: the factor that the alignment applied; `segments`: how many;
        `by_length`: t_err_percent, r_err_deg_per_100m and segments of each length in metres.

    Raises:
        InputError: poses that are not finite or no rigid motions (names the pose's index).
    """
    check_poses(truth, "true pose")
    check_poses(predicted, "predicted pose")
    similarity = align(truth, predicted, alignment)
    aligned = similarity.apply(predicted)
    segments = segment_errors(truth, aligned)
    true_pose, pose = to_homogeneous(truth), to_homogeneous(aligned)
    error = relative(relative(true_pose[:-1], true_pose[1:]), relative(pose[:-1], pose[1:]))
    distance = np.linalg.norm(error[:, :3, 3], axis=1)
    angle = np.degrees(rotation_angle(nearest_rotation(error[:, :3, :3])))
    by_length = {
        length: _drift(segments, segments.length == length) for length in LENGTHS if (segments.length == length).any()
    }
    return _drift(segments, slice(None)) | {
        "ate_m": _root_mean_square(absolute_errors(truth, aligned)),
        "rpe_m": float(distance.mean()),
        "rpe_deg": float(np.degrees(published_angle(error)).mean()),
        "rpe_rmse_m": _root_mean_square(distance),
        "rpe_rmse_deg": _root_mean_square(angle),
        "scale": similarity.scale,
        "by_length": by_length,
    }


def path_lengths(world_from_camera: np.ndarray) -> np.ndarray:
    """Length of the way from the first camera to each: [F]."""
    steps = np.linalg.norm(np.diff(world_from_camera[..., 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def published_angle(transform: np.ndarray) -> np.ndarray:
    """Angle of transforms [..., 4, 4] in radians as KITTI's development kit computes it: arccos((trace - 1) / 2).

    Near zero an error of 1e-7 in the trace, as files with seven digits have it, makes 3e-4 of angle: fine for the
    rotation over 100 m, coarse for that from frame to frame.
    """
    cosine = (np.trace(transform[..., :3, :3], axis1=-2, axis2=-1) - 1) / 2
    return np.arccos(cosine.clip(-1, 1))


def associate(times: np.ndarray, true_times: np.ndarray, largest_difference: float) -> tuple[np.ndarray, np.ndarray]:
    """Which poses of two trajectories belong together, by time, as evo does it.

    Each pose of the trajectory with fewer poses gets the other's nearest in time (the earlier of two equally near), if
    there is one within `largest_difference`.

    Args:
        times, true_times: [F], [T] seconds, not descending.

    Returns:
        Indices into both, [P] and [P].
    """
    if len(true_times) > len(times):
        few, many = times, true_times
    else:
        few, many = true_times, times
    above = np.searchsorted(many, few, side="right").clip(0, len(many) - 1)
    below = (above - 1).clip(0)
    # Where `above` was cut off at the end it may lie below: distances are taken without sign.
    nearest = np.where(np.abs(many[above] - few) < np.abs(few - many[below]), above, below)
    close = np.flatnonzero(np.abs(many[nearest] - few) <= largest_difference)
    return (close, nearest[close]) if len(true_times) > len(times) else (nearest[close], close)


def check_poses(poses: np.ndarray, name: str) -> None:
    """InputError with the index of the first of `poses` [N, ..., 3, 4] that is not finite (or 1e12 away, whatever the
    unit) or not a rigid motion."""
    rest = tuple(range(1, poses.ndim))
    finite = (np.abs(poses) < FARTHEST).all(rest)  # False for NaN
    if not finite.all():
        raise InputError(f"{name} {np.flatnonzero(~finite)[0]} is not finite ({np.count_nonzero(~finite)} are not)")
    rigid = is_rotation(poses[..., :3]).all(rest[:-2])
    if not rigid.all():
        index = np.flatnonzero(~rigid)[0]
        raise InputError(f"{name} {index}: its 3 x 3 part is no rotation, expected R^T R = I and no mirror")


def _drift(segments: Segments, chosen: np.ndarray | slice) -> dict:
    translation, rotation = segments.translation[chosen], segments.rotation[chosen]
    return {
        "t_err_percent": 100 * float(translation.mean()) if len(translation) else None,
        "r_err_deg_per_100m": 100 * float(np.degrees(rotation.mean())) if len(rotation) else None,
        "segments": len(translation),
    }


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values * values).mean()))


def _check_pair(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.ndim != 3 or truth.shape[1:] != (3, 4) or truth.shape != predicted.shape or len(truth) < 2:
        raise ValueError(
            f"trajectories: got shapes {list(truth.shape)} and {list(predicted.shape)}, expected [F > 1, 3, 4] twice"
        )
