"""Predicted snippets of KITTI odometry: read, scored against the truth, chained into trajectories."""

import numpy as np
from path import Path

from datasets.formats.kitti import read_poses
from datasets.formats.kitti_folders import pose_file, sequence_folder
from datasets.formats.trajectories import read_frame_times, read_trajectory
from evaluation.leakage import KITTI_SEQUENCES
from evaluation.metrics.pose import (
    mean_odometry,
    relative_to_first_frame,
    snippet_ate,
    snippet_rotation_error,
    snippet_scale,
    snippets,
    straight_line,
)
from evaluation.metrics.trajectory import chain_snippets
from evaluation.predictions import describe_averages, load_predictions
from evaluation.trajectories import FIGURES
from files.errors import InputError
from geometry.rigid import to_3x4, to_homogeneous

CAMERAS = {"image_2": "image_2", "image_0": "image_0, grey"}  # the left ones, in order of preference
TRAINING_SEQUENCES = [name for name in KITTI_SEQUENCES if name not in ("09", "10")]
SNIPPET_SCALES = {
    "network": "in the network's unit, nothing fitted",
    "ground-truth": "each snippet first scaled to the ground truth",
}


def is_sequence_name(name: str) -> bool:
    """Whether it names a folder, and not a way out of one."""
    return bool(name) and not set("/\\\0") & set(name) and name not in (".", "..")


def load_snippets(file: Path, sequences: list[str] | None) -> tuple[dict[str, np.ndarray], dict]:
    """Predicted snippets by sequence, and how they were made; InputError if the file lacks one or has other shapes.

    The snippets are first_from_frame float64 [N, n, 3, 4], whatever common frame the file's poses are in.
    """
    arrays, about = load_predictions(file, "snippets")
    predicted = {name.removeprefix("snippets_"): poses for name, poses in arrays.items()}
    for name in sequences or predicted:
        if not is_sequence_name(name):
            raise InputError(f"{file}: {name!r:.60} is not the name of a sequence, expected 00, 01, ...")
        if name not in predicted:
            raise InputError(
                f"{file}: no predictions of sequence {name:.60}, only of {', '.join(sorted(predicted)):.200}"
            )
        poses = predicted[name]
        fits = poses.ndim == 4 and poses.shape[1] >= 2 and poses.shape[2:] == (3, 4) and poses.dtype.kind == "f"
        if not fits or len(poses) == 0:
            raise InputError(
                f"{file}: sequence {name:.60} is {poses.dtype} {[*poses.shape]}, expected floating-point numbers "
                "[N > 0, frames > 1, 3, 4]"
            )
    if not predicted:
        raise InputError(f"{file}: holds no snippets")
    return {name: relative_to_first_frame(predicted[name]) for name in sequences or sorted(predicted)}, about


def read_true_poses(kitti: Path, sequence: str, predicted: np.ndarray) -> np.ndarray:
    """True poses of a sequence, world_from_camera [F, 3, 4]; InputError unless they fit the snippets [N, n, 3, 4]."""
    world_from_camera = read_trajectory(pose_file(kitti, sequence)).world_from_camera
    expected = len(world_from_camera) - predicted.shape[1] + 1
    if len(predicted) != expected:
        raise InputError(
            f"{len(predicted)} snippets of {predicted.shape[1]} frames, but the {len(world_from_camera)} poses in "
            f"{pose_file(kitti, sequence)} make {max(expected, 0)}"
        )
    return world_from_camera


def read_times_of_sequence(kitti: Path, sequence: str, count: int) -> np.ndarray | None:
    """Times of a sequence's frames in seconds, [count]; None where there is no times.txt."""
    file = sequence_folder(kitti, sequence) / "times.txt"
    return read_frame_times(file, count) if file.is_file() else None


def read_training_poses(kitti: Path, tested: list[str]) -> dict[str, np.ndarray]:
    """Ground truth of the training sequences that are there and are not tested: world_from_camera [F, 3, 4]."""
    files = {name: pose_file(kitti, name) for name in TRAINING_SEQUENCES if name not in tested}
    return {name: read_poses(file) for name, file in files.items() if file.is_file()}


def score_snippets(
    sequence: str, predicted: np.ndarray, world_from_camera: np.ndarray, training: dict[str, np.ndarray]
) -> dict:
    """Mean and standard deviation of the errors of a sequence's snippets, beside those of two baselines.

    The baselines are a straight line, and the mean motion of the training sequences (of the tested sequence itself
    where there is none, which no constant motion easily beats).

    Args:
        predicted: first_from_frame [N, n, 3, 4].
        world_from_camera: true poses [F, 3, 4].
        training: true poses of the training sequences by name.
    """
    frames = predicted.shape[1]
    truth = snippets(world_from_camera, frames)
    line = straight_line(*truth.shape[:2])
    used = {name: snippets(poses, frames) for name, poses in training.items() if len(poses) >= frames}
    used = used or {sequence: truth}
    mean_motion = np.broadcast_to(mean_odometry(np.concatenate([*used.values()])), truth.shape)
    errors = {
        "ate": snippet_ate(truth, predicted),
        "rotation_error": snippet_rotation_error(truth, predicted),
        "straight_line_ate": snippet_ate(truth, line),
        "straight_line_rotation_error": snippet_rotation_error(truth, line),
        "mean_odometry_ate": snippet_ate(truth, mean_motion),
        "mean_odometry_rotation_error": snippet_rotation_error(truth, mean_motion),
    }
    scales = snippet_scale(truth, predicted)
    scale = float(np.median(scales))
    # The spread as a share of the median: how consistent the network's unit is from snippet to snippet.
    spread = float(np.std(scales / scale)) if scale else None
    about = {"snippets": len(truth), "frames": frames, "scale": scale, "scale_spread": spread}
    figures = {name: {"mean": float(error.mean()), "std": float(error.std())} for name, error in errors.items()}
    return about | figures | {"mean_odometry_of": [*used]}


def chain_from_truth(predicted: np.ndarray, truth: np.ndarray, snippet_scale_from: str) -> np.ndarray:
    """Snippets [N, n, 3, 4] as a trajectory [F, 3, 4] that begins at the first true pose of `truth` [F, 3, 4]."""
    if snippet_scale_from == "ground-truth":
        scale = snippet_scale(snippets(truth, predicted.shape[1]), predicted)
        predicted = np.concatenate([predicted[..., :3], scale[:, None, None, None] * predicted[..., 3:]], -1)
    return to_3x4(to_homogeneous(truth[0]) @ to_homogeneous(chain_snippets(predicted)))


def summarise_sequences(results: list[dict], about: dict, snippet_scale_from: str) -> dict:
    """The result as written to JSON: the protocol as a line and in parts, and the figures of each sequence."""
    cameras = about.get("cameras")
    cameras = cameras if isinstance(cameras, dict) else {}  # the file may come from another method
    counted = ", ".join(
        f"{result['sequence']} ({CAMERAS.get(str(cameras.get(result['sequence'])), 'camera unknown')}, "
        f"{result['snippets']} snippets of {result['frames']} frames)"
        for result in results
    )
    averaged = describe_averages(about)
    means = " and ".join(sorted({" ".join(result["mean_odometry_of"]) for result in results}))
    line = (
        f"protocol: KITTI odometry {counted}; ground truth: camera 0; scale: fitted per snippet; ATE: norm divided by "
        f"the number of frames, as published; mean odometry: of {means}{averaged}"
    )
    protocol = {
        "line": line,
        "ground_truth": "camera 0",
        "scale": "per snippet",
        "ate": "norm / frames",
        "averaged": averaged.removeprefix("; "),
        "trajectory_line": f"whole trajectories: chained from the snippets ({SNIPPET_SCALES[snippet_scale_from]}; each "
        f"motion the mean of those that hold it); {FIGURES}",
        "snippet_scale": snippet_scale_from,
    }
    return {"protocol": protocol, "results": results}


def snippet_row(result: dict) -> dict[str, str]:
    """A row of the table of snippets, mean and standard deviation of each error."""
    columns = {
        "ATE (m)": "ate",
        "rotation (rad)": "rotation_error",
        "straight line ATE (m)": "straight_line_ate",
        "its rotation (rad)": "straight_line_rotation_error",
        "mean odometry ATE (m)": "mean_odometry_ate",
        "its rotation (rad) ": "mean_odometry_rotation_error",
    }
    cells = {title: f"{result[name]['mean']:.4f} ± {result[name]['std']:.4f}" for title, name in columns.items()}
    return {"sequence": result["sequence"], **cells}
