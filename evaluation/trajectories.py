"""Whole trajectories for the scripts: paired with the truth, scored after each alignment, written for other tools."""

from dataclasses import dataclass

import numpy as np
from path import Path

from datasets.formats.trajectories import Trajectory, read_frame_times, read_trajectory
from evaluation.metrics.trajectory import associate, path_lengths, trajectory_errors
from evaluation.trajectory_hints import order_hint, unit_hint
from files.errors import InputError, UsageError

_DRIFT, _STEP_ERROR = "t_err, r_err: KITTI's, over 100 to 800 m", "RPE: mean from frame to frame"
FIGURES = f"{_DRIFT}; ATE: RMSE; {_STEP_ERROR}"
LARGEST_DIFFERENCE = 0.01  # seconds, between two poses that are paired, unless told otherwise
COMPLETE = 0.95  # share of the true path that a result of the whole covers
_UNEVEN = 1.5  # the longest time between neighbouring frames, over the median


@dataclass(frozen=True)
class Pair:
    """A trajectory and its ground truth, pose by pose."""

    predicted: np.ndarray  # world_from_camera [P, 3, 4]
    truth: np.ndarray  # world_from_camera [P, 3, 4]
    times: np.ndarray | None  # [P], seconds; None: not known
    pairing: str  # how the poses were paired, and what is suspicious about them
    figures: str  # what the figures are


def read_pair(file: Path, truth_file: Path, times_file: Path | None, difference: float | None) -> Pair:
    """A trajectory and its ground truth, pose by pose.

    Files in KITTI's form are paired line by line, and by time as soon as one is in TUM's form.

    Args:
        times_file: a time a line, for the files that have none.
        difference: the largest one of paired times in seconds; None for `LARGEST_DIFFERENCE`.

    Raises:
        UsageError: times or their difference where neither is needed.
        InputError: damage, with its line; KITTI files of different lengths; fewer than two pairs.
    """
    predicted, truth = read_trajectory(file), read_trajectory(truth_file)
    by_line = predicted.times is None and truth.times is None
    if times_file is not None and predicted.times is not None and truth.times is not None:
        raise UsageError(f"--times {times_file}: only for files in KITTI's form, both files here have times")
    if difference is not None and by_line:
        raise UsageError(f"--max-time-difference {difference:g}: only for files in TUM's form, here lines are paired")
    largest_difference = difference or LARGEST_DIFFERENCE
    times, true_times = (_times(trajectory, times_file) for trajectory in (predicted, truth))
    hint = ""
    if by_line:
        rows, true_rows = _pair_by_line(predicted, truth)
        pairing = f"{len(rows)} poses, paired line by line"
    elif times is None or true_times is None:
        untimed = file if times is None else truth_file
        raise InputError(f"{untimed}: has no times to pair it by with a TUM file; give them with --times times.txt")
    else:
        rows, true_rows = associate(times, true_times, largest_difference)
        pairing = _describe_pairs(rows, true_rows, predicted, truth, largest_difference)
        if 2 * len(rows) < min(len(times), len(true_times)):
            timed = [times_file if one.times is None else one.file for one in (predicted, truth)]
            hint = unit_hint(times, true_times, timed, largest_difference)
    if by_line and len(rows) < 2:  # pairing does not matter
        raise InputError(f"{file}: {len(rows)} pose, like {truth_file}; a trajectory has 2 poses or more")
    if len(rows) < 2:
        raise InputError(f"{file}: {pairing} of {truth_file}{hint}; a trajectory has 2 poses or more")
    poses, true_poses = predicted.world_from_camera[rows], truth.world_from_camera[true_rows]
    pairing += hint + order_hint(
        poses, true_poses, [None if one.times is None else one.file for one in (predicted, truth)]
    )
    paired_times = None if times is None else times[rows]
    return Pair(poses, true_poses, paired_times, pairing, describe_figures(paired_times, rows, true_rows))


def describe_figures(times: np.ndarray | None, rows: np.ndarray, true_rows: np.ndarray) -> str:
    """`FIGURES`; where the paired poses are not neighbouring frames (keyframes, for one), with the time between them.

    KITTI's segments start at every tenth pose, so their starts and ends are then others, too.

    Args:
        times: of the paired poses, [P], seconds.
        rows, true_rows: places of the paired poses in the trajectory and in the truth, [P].
    """
    if times is None:
        return FIGURES
    steps = np.diff(times)
    shortest, longest = f"{steps.min():.3g}", f"{steps.max():.3g}"
    later = shortest if shortest == longest else f"{shortest} to {longest}"
    between = f"RPE: mean from each paired pose to the next, {later} s later"
    if (np.diff(rows) > 1).any() or steps.max() > _UNEVEN * np.median(steps):
        between += " (not comparable with figures from frame to frame)"
    elif (np.diff(true_rows) == 1).all():
        return FIGURES
    segments = f"{_DRIFT} from every tenth paired pose on (not comparable with figures of all frames)"
    return FIGURES.replace(_STEP_ERROR, between).replace(_DRIFT, segments)


def _times(trajectory: Trajectory, file: Path | None) -> np.ndarray | None:
    if trajectory.times is not None or file is None:
        return trajectory.times
    return read_frame_times(file, len(trajectory.lines))


def _pair_by_line(predicted: Trajectory, truth: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    shorter, longer = sorted((predicted, truth), key=lambda trajectory: len(trajectory.lines))
    if len(shorter.lines) < len(longer.lines):
        raise InputError(
            f"{shorter.file}: {len(shorter.lines)} poses, the last in line {shorter.lines[-1]}, but {longer.file} has "
            f"{len(longer.lines)}: its line {longer.lines[len(shorter.lines)]} has no counterpart; expected a line for "
            "each frame in both, or TUM files, which have times to pair them by"
        )
    both = np.arange(len(longer.lines))
    return both, both


def _describe_pairs(
    rows: np.ndarray, true_rows: np.ndarray, predicted: Trajectory, truth: Trajectory, largest_difference: float
) -> str:
    """How many poses were paired, and whether that is all of the way."""
    pairing = (
        f"{len(rows)} of {len(predicted.lines)} poses paired by time ({largest_difference:g} s at most) with "
        f"{len(truth.lines)} true ones"
    )
    if len(rows) < 2:
        return pairing
    path = path_lengths(truth.world_from_camera)
    covered = (path[true_rows[-1]] - path[true_rows[0]]) / path[-1] if path[-1] > 0 else 1.0
    pairing += f", over {100 * covered:.1f} % of the true path"
    if len(rows) < min(len(predicted.lines), len(truth.lines)) or covered < COMPLETE:
        return f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE PATH: {pairing}"
    return pairing


def score_trajectory(predicted: np.ndarray, truth: np.ndarray, alignments: list[str]) -> dict:
    """The figures of a trajectory [F, 3, 4] after each alignment, for a script's JSON."""
    return {
        "frames": len(truth),
        "path_m": float(path_lengths(truth)[-1]),
        "alignments": {alignment: trajectory_errors(truth, predicted, alignment) for alignment in alignments},
    }


def table_rows(heading: str, name: str, scores: dict) -> list[dict[str, str]]:
    """A row for each alignment, for `report.table`; `heading` is that of the column of names."""

    def cell(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        {
            heading: name,
            "alignment": alignment,
            "t_err (%)": cell(errors["t_err_percent"], 3),
            "r_err (deg/100 m)": cell(errors["r_err_deg_per_100m"], 3),
            "ATE (m)": cell(errors["ate_m"], 3),
            "RPE (m)": cell(errors["rpe_m"], 4),
            "RPE (deg)": cell(errors["rpe_deg"], 4),
            "scale": f"{errors['scale']:.4g}",
        }
        for alignment, errors in scores["alignments"].items()
    ]
