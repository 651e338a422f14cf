"""Predictions as files for people and for other tools."""

import numpy as np
from path import Path
from tqdm import tqdm

from datasets.formats.kitti_folders import find_image
from datasets.formats.trajectories import write_tum_trajectory
from datasets.layout import write_poses
from evaluation.depth_scoring import ImageScores, ImageSet, Predictions
from evaluation.ground_truth import read_truth
from evaluation.metrics.depth_protocols import DepthTest
from files.errors import InputError
from files.images import read_image
from visualization.depth_sheet import choose_rows, draw_row, write_sheet
from visualization.trajectory import write_trajectory_picture

PICTURES_OF_EACH = 3  # best, median and worst images on a sheet


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


def draw_depth_sheet(
    file: Path,
    name: str,
    test: DepthTest,
    images: ImageSet,
    predictions: Predictions,
    scores: list[ImageScores],
    root: Path,
) -> None:
    """Draw the images that a depth test scored best, in the middle, and worst.

    Args:
        file: a .png.
        name: of the test.
        images: of the test.
        scores: the network's, of each image.
        root: the folder that the images' names are relative to.
    """
    found, places = images.found, images.places
    chosen = choose_rows([image["abs_rel"] for image in scores], PICTURES_OF_EACH)
    labels, rows = [], []
    for kind, index in tqdm(chosen, desc="drawing", unit="image", leave=False, delay=2):
        image = found[index]
        truth = read_truth(root, image, test.ground_truth, places[image])
        pixels = read_image(find_image(root, image))
        rows.append(draw_row(pixels, predictions.depth[image], scores[index]["scale"], truth, test))
        parts = image.split("/")
        where = image
        if len(parts) == 5:
            where = f"{parts[0]}\n{parts[1].removeprefix(f'{parts[0]}_').removesuffix('_sync')}\n{Path(image).stem}"
        labels.append(f"{kind}\nAbs Rel {scores[index]['abs_rel']:.3f}\n\n{where}")
    title = f"{name}: {len(found)} images, mean Abs Rel {np.mean([image['abs_rel'] for image in scores]):.4f}"
    write_sheet(file, title, labels, rows)
