"""Figures of camera motion on KITTI, frame by frame: errors of snippets, t_err and r_err, ATE and RPE."""

from itertools import pairwise

import numpy as np

LENGTHS = (100, 200, 300, 400, 500, 600, 700, 800)


def homogeneous(pose: np.ndarray) -> np.ndarray:
    return np.vstack([pose, [0, 0, 0, 1]])


def snippet(poses: np.ndarray, first: int, length: int) -> np.ndarray:
    """Each frame's pose in the first frame of a snippet: [length, 3, 4]."""
    start = np.linalg.inv(homogeneous(poses[first]))
    return np.stack([(start @ homogeneous(pose))[:3] for pose in poses[first : first + length]])


def snippet_errors(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """ATE with the scale of least squares, a norm divided by the number of frames; and the mean angle in radians."""
    true_positions, positions = truth[:, :, 3], predicted[:, :, 3].astype(np.float64)
    square = sum(p @ p for p in positions)
    scale = sum(t @ p for t, p in zip(true_positions, positions, strict=True)) / square if square else 0.0
    squares = [(scale * p - t) @ (scale * p - t) for t, p in zip(true_positions, positions, strict=True)]
    angles = []
    for true_pose, pose in zip(truth, predicted, strict=True):
        turn = true_pose[:, :3] @ np.linalg.inv(pose[:, :3].astype(np.float64))
        sine = np.linalg.norm([turn[0, 1] - turn[1, 0], turn[1, 2] - turn[2, 1], turn[0, 2] - turn[2, 0]])
        angles.append(np.arctan2(sine, np.trace(turn) - 1))
    return np.sqrt(sum(squares)) / len(truth), float(np.mean(angles))


def snippet_figures(poses: np.ndarray, predicted: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard deviation over all snippets, by the names of the reference figures."""
    length = predicted.shape[1]
    line = np.tile(np.eye(3, 4), (length, 1, 1))
    line[:, 2, 3] = range(length)
    ate, rotation, straight = [], [], []
    for first, one in enumerate(predicted):
        truth = snippet(poses, first, length)
        errors = snippet_errors(truth, one)
        ate.append(errors[0])
        rotation.append(errors[1])
        straight.append(snippet_errors(truth, line)[0])
    named = {"ate": ate, "rotation_error": rotation, "straight_line_ate": straight}
    return {name: [float(np.mean(values)), float(np.std(values))] for name, values in named.items()}


def aligned(truth: np.ndarray, predicted: np.ndarray, alignment: str) -> np.ndarray:
    """Poses [F, 3, 4] after an alignment of the positions. Umeyama's is found by Horn's quaternion, an eigenvector."""
    p, t = predicted[:, :, 3], truth[:, :, 3]
    scale, turn, shift = 1.0, np.eye(3), np.zeros(3)
    if alignment == "scale":
        turn = truth[0, :, :3] @ predicted[0, :, :3].T
        moved, true_moved = (p - p[0]) @ turn.T, t - t[0]
        scale = (moved * true_moved).sum() / (moved * moved).sum()
        shift = t[0] - scale * turn @ p[0]
    elif alignment in ("6dof", "7dof"):
        moved, true_moved = p - p.mean(0), t - t.mean(0)
        turn = horn(moved, true_moved)
        if alignment == "7dof":
            scale = ((moved @ turn.T) * true_moved).sum() / (moved * moved).sum()
        shift = t.mean(0) - scale * turn @ p.mean(0)
    return np.stack([np.column_stack([turn @ pose[:, :3], scale * turn @ pose[:, 3] + shift]) for pose in predicted])


def horn(moved: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation that brings vectors [n, 3] nearest to others (B. Horn, JOSA A 1987): a quaternion's matrix."""
    s = moved.T @ target
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = s
    matrix = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    w, x, y, z = np.linalg.eigh(np.array(matrix))[1][:, -1]
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def angle_of(turn: np.ndarray) -> float:
    """As the development kit has it: arccos((trace - 1) / 2)."""
    return float(np.arccos(min(max((np.trace(turn[:3, :3]) - 1) / 2, -1.0), 1.0)))


def motion_error(truth, predicted, first: int, last: int) -> np.ndarray:
    """(predicted motion)^-1 (true motion), 4 x 4."""
    true_motion = np.linalg.inv(homogeneous(truth[first])) @ homogeneous(truth[last])
    motion = np.linalg.inv(homogeneous(predicted[first])) @ homogeneous(predicted[last])
    return np.linalg.inv(motion) @ true_motion


def trajectory_figures(truth: np.ndarray, predicted: np.ndarray, alignment: str) -> dict[str, float]:
    """The figures of a whole trajectory, by the names of the reference figures (KITTI's development kit)."""
    moved = aligned(truth, predicted, alignment)
    path = [0.0]
    for before, after in pairwise(truth):
        path.append(path[-1] + float(np.linalg.norm(after[:, 3] - before[:, 3])))
    translations, rotations = [], []
    for first in range(0, len(truth), 10):
        for length in LENGTHS:
            last = next((k for k in range(first, len(path)) if path[k] > path[first] + length), None)
            if last is not None:
                error = motion_error(truth, moved, first, last)
                translations.append(np.linalg.norm(error[:3, 3]) / length)
                rotations.append(angle_of(error) / length)
    steps = [motion_error(truth, moved, k, k + 1) for k in range(len(truth) - 1)]
    distances = [np.sum((a[:, 3] - b[:, 3]) ** 2) for a, b in zip(truth, moved, strict=True)]
    return {
        "t_err_percent": 100 * float(np.mean(translations)),
        "r_err_deg_per_100m": 100 * float(np.degrees(np.mean(rotations))),
        "ate_m": float(np.sqrt(np.mean(distances))),
        "rpe_m": float(np.mean([np.linalg.norm(step[:3, 3]) for step in steps])),
        "rpe_deg": float(np.mean([np.degrees(angle_of(step)) for step in steps])),
        "segments": len(translations),
    }


def drive(frames: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """A winding drive [frames, 3, 4] of about 1.5 m a frame, with noise on each motion (metres, a tenth in radians)."""
    random, disturb = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    pose, poses = np.eye(4), []
    for _ in range(frames):
        poses.append(pose[:3])
        turns = random.normal(0, [0.003, 0.03, 0.002]) + noise / 10 * disturb.normal(size=3)
        step = random.normal([0, 0, 1.5], [0.02, 0.01, 0.3]) + noise * disturb.normal(size=3)
        motion = np.eye(4)
        for axis, turn in enumerate(turns):
            c, s = np.cos(turn), np.sin(turn)
            i, j = (axis + 1) % 3, (axis + 2) % 3
            about = np.eye(3)
            about[i, i] = about[j, j] = c
            about[j, i], about[i, j] = s, -s
            motion[:3, :3] = motion[:3, :3] @ about
        motion[:3, 3] = step
        pose = pose @ motion
    return np.stack(poses)


def make_inputs(frames: int = 60, length: int = 5) -> dict[str, np.ndarray]:
    """Drives, and predictions of their snippets, each in its own unit: [N, length, 3, 4]."""
    inputs = {}
    for seed, name in enumerate(("09", "10")):
        poses, noisy = drive(frames, 2 * seed), drive(frames, 2 * seed, 0.05)
        random = np.random.default_rng(seed)
        predicted = np.stack([snippet(noisy, first, length) for first in range(frames - length + 1)])
        predicted[..., 3] *= random.uniform(0.02, 0.05, (len(predicted), 1, 1))
        inputs |= {f"{name}_poses": poses, f"{name}_predicted_snippets": predicted}
    return inputs


def make_trajectories(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A drive of about 600 m, and a prediction of it that drifts, in another unit and another world."""
    truth, predicted = drive(frames, 20), drive(frames, 20, 0.03)
    world = homogeneous(drive(40, 30)[-1])
    predicted[..., 3] *= 0.7
    return truth, np.stack([(world @ homogeneous(pose))[:3] for pose in predicted])


def figures(inputs: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Errors of the snippets, by the names of the reference figures."""
    return {
        f"{name}_{key}_mean_std": values
        for name in ("09", "10")
        for key, values in snippet_figures(inputs[f"{name}_poses"], inputs[f"{name}_predicted_snippets"]).items()
    }
