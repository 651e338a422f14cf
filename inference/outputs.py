"""Predictions as files for people and for other tools."""

import numpy as np
from path import Path

from datasets.formats.trajectories import write_tum_trajectory
from datasets.layout import write_poses
from files.errors import InputError
from visualization.trajectory import write_trajectory_picture


def claim_export_folder(folder: Path) -> None:
    """Make the folder of --export; InputError if it is something else, or its parent is missing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--export {folder}: is a file, expected a folder")
    if not folder.is_dir() and not folder.absolute().parent.is_dir():
        raise InputError(f"--export {folder}: no such folder {folder.absolute().parent}")
    folder.mkdir_p()


def export_trajectory(
    folder: Path,
    name: str,
    predicted: np.ndarray,
    truth: np.ndarray | None,
    times: np.ndarray | None,
    scores: dict | None,
    inputs: tuple[Path, ...],
) -> list[Path]:
    """Write NAME.txt (KITTI), NAME_tum.txt (TUM, if times are known), both not aligned, and the picture NAME.png.

    Args:
        truth, scores: the true poses and the result of `score_trajectory`; the picture has the last of its alignments.
            Without them there is no picture.
        inputs: files that must not be written over.

    Returns:
        The files that were written.
    """
    kitti, tum, picture = (folder / f"{name}{end}" for end in (".txt", "_tum.txt", ".png"))
    for file in inputs:
        if file.realpath() in (kitti.realpath(), tum.realpath()):
            raise InputError(f"--export {folder}: would write over {file}, choose another folder")
    write_poses(kitti, predicted)
    written = [kitti]
    if times is not None:
        write_tum_trajectory(tum, times, predicted)
        written.append(tum)
    if truth is not None and scores is not None:
        alignment, errors = list(scores["alignments"].items())[-1]
        write_trajectory_picture(picture, name, truth, predicted, alignment, errors)
        written.append(picture)
    return written
