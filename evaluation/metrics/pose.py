"""Errors of short camera trajectories, as the field publishes them on KITTI odometry.

A snippet is a few neighbouring frames, and its poses are each frame's pose in the snippet's first frame:
`first_from_frame` [N, n, 3, 4] for N snippets of n frames; the first of the n is the identity. Every run of n
neighbouring frames is a snippet, so a sequence of F frames has F - n + 1 of them.

numpy, float64; no files, no network; no loop over snippets. docs/evaluation.md says what is odd about the protocol.
"""

import numpy as np

from evaluation.metrics.trajectory import check_poses
from files.errors import InputError
from geometry.rigid import FARTHEST, is_rotation, nearest_rotation, rotation_angle


def snippets(world_from_camera: np.ndarray, frames: int) -> np.ndarray:
    """All snippets of a trajectory.

    Args:
        world_from_camera: [F, 3, 4], camera poses in any common frame.
        frames: n, how many frames a snippet has.

    Returns:
        first_from_frame [F - n + 1, n, 3, 4].
    """
    if world_from_camera.ndim != 3 or world_from_camera.shape[1:] != (3, 4):
        raise ValueError(f"world_from_camera: got shape {list(world_from_camera.shape)}, expected [F, 3, 4]")
    count = len(world_from_camera) - frames + 1
    if count < 1:
        raise InputError(f"a trajectory of {len(world_from_camera)} poses has no snippet of {frames} frames")
    poses = world_from_camera.astype(np.float64)[np.arange(count)[:, None] + np.arange(frames)]
    # R^T for the inverse: `geometry.rigid.relative` inverts a matrix of seven digits, which changes the ATE by 1e-7 m.
    first_from_world = poses[:, :1, :, :3].swapaxes(-1, -2)
    moved = poses.copy()
    moved[..., 3] -= poses[:, :1, :, 3]
    return first_from_world @ moved


def relative_to_first_frame(poses: np.ndarray) -> np.ndarray:
    """Predicted snippets [N, n, 3, 4] in the frame of each snippet's first camera: float64 [N, n, 3, 4].

    Files of other methods hold poses relative to the middle frame, or in one world. A snippet whose first pose is the
    identity keeps its bits. So does a snippet that cannot be moved, which the scores refuse: its first pose is no
    rigid motion, or one of its poses is not finite.
    """
    poses = poses.astype(np.float64)
    first = poses[:, :1]
    finite = (np.abs(poses) < FARTHEST).all((1, 2, 3))  # False for NaN
    moved = finite & (first != np.eye(3, 4)).any((1, 2, 3)) & is_rotation(first[..., :3])[:, 0]
    # Positions are subtracted first, so that a camera that stands in any world stands exactly.
    around_first = poses[moved]
    around_first[..., 3] -= first[moved][..., 3]
    poses[moved] = np.linalg.inv(first[moved][..., :3]) @ around_first
    return poses


def snippet_scale(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """What each predicted snippet is multiplied by so that its positions lie nearest to the true ones: [N].

    Least squares over the snippet's positions, sum(truth * predicted) / sum(predicted^2): a factor of its own for
    every snippet, as published. It may come out negative, which turns a backward trajectory around. A prediction that
    does not move at all has no best factor; it gets 0.
    """
    _check_snippets(truth, predicted)
    true_position, position = _positions(truth), _positions(predicted)
    length = (position * position).sum((1, 2))
    moving = length > 0
    agreement = (true_position * position).sum((1, 2))
    return np.divide(agreement, length, out=np.zeros_like(length), where=moving)


def snippet_ate(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The published "absolute trajectory error" of each snippet: [N], metres.

    With positions p of the n frames and the snippet's own scale s: sqrt(sum over frames of |s p - p_true|^2) / n. It
    is a norm divided by the number of frames: an RMSE over the n frames is sqrt(n) times larger.

    Args:
        truth, predicted: first_from_frame [N, n, 3, 4]; the prediction in any unit.

    Raises:
        InputError: a pose that is not finite (names the snippet's index).
    """
    scale = snippet_scale(truth, predicted)
    difference = scale[:, None, None] * _positions(predicted) - _positions(truth)
    return np.sqrt((difference * difference).sum((1, 2))) / truth.shape[1]


def snippet_rotation_error(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Angle between the true and the predicted rotation, averaged over each snippet's frames: [N], radians.

    As published the mean is over all n frames, and the first frame's angle is 0 by construction: a mean over the
    frames that can be wrong is n / (n - 1) times larger.

    Raises:
        InputError: a predicted pose that is not finite or not a rigid motion (names the snippet's index).
    """
    _check_snippets(truth, predicted)
    check_poses(predicted, "snippet")
    rotation = truth[..., :3] @ np.linalg.inv(predicted[..., :3].astype(np.float64))
    return rotation_angle(rotation).mean(1)


def straight_line(count: int, frames: int) -> np.ndarray:
    """The trivial prediction: every snippet drives along the first camera's axis at constant speed: [N, n, 3, 4]."""
    line = np.tile(np.eye(3, 4), (frames, 1, 1))
    line[:, 2, 3] = np.arange(frames)
    return np.broadcast_to(line, (count, frames, 3, 4))


def mean_odometry(first_from_frame: np.ndarray) -> np.ndarray:
    """The mean motion of many snippets, as a prediction for each of them: the paper's "mean odometry" baseline.

    Args:
        first_from_frame: [N, n, 3, 4], true snippets, of the training sequences.

    Returns:
        [n, 3, 4]: mean positions and chordal mean rotations.
    """
    mean = first_from_frame.astype(np.float64).mean(0)
    mean[..., :3] = nearest_rotation(mean[..., :3])
    return mean


def _positions(first_from_frame: np.ndarray) -> np.ndarray:
    return first_from_frame[..., 3].astype(np.float64)


def _check_snippets(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.ndim != 4 or truth.shape[2:] != (3, 4) or truth.shape != predicted.shape or not len(truth):
        raise ValueError(
            f"snippets: got shapes {list(truth.shape)} and {list(predicted.shape)}, expected [N, n, 3, 4] twice"
        )
    for name, poses in (("true", truth), ("predicted", predicted)):
        finite = (np.abs(poses) < FARTHEST).all((1, 2, 3))  # False for NaN
        if not finite.all():
            raise InputError(
                f"{name} poses: {np.count_nonzero(~finite)} of {len(poses)} snippets are not finite, the first is "
                f"snippet {np.flatnonzero(~finite)[0]}"
            )
