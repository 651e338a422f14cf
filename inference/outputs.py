"""Predictions as files for people and for other tools."""

from collections.abc import Iterable
from dataclasses import dataclass

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
from files.outputs import check_output
from visualization.depth_sheet import choose_rows, draw_row, write_sheet
from visualization.trajectory import write_path_picture, write_trajectory_picture

PICTURES_OF_EACH = 3  # best, median and worst images on a sheet


def claim_export_folder(
    folder: Path, names: Iterable[str], truth: Iterable[Path], inputs: Iterable[Path | None]
) -> None:
    """Make the folder of --export.

    Args:
        names: of the trajectories that are to be written there.
        truth: folders of ground truth, which would take an exported trajectory for the truth of a sequence.
        inputs: files that must not be written over.

    Raises:
        InputError: it is a file, a folder of ground truth, or in a folder that is missing; or one of the files to
            write there is an input, cannot be written, or is a file of another kind.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--export {folder}: is a file, expected a folder")
    if not folder.is_dir() and not folder.absolute().parent.is_dir():
        raise InputError(f"--export {folder}: no such folder {folder.absolute().parent}")
    if folder.realpath() in {place.realpath() for place in truth}:
        raise InputError(f"--export {folder}: is the folder of the ground truth, expected another one")
    folder.mkdir_p()
    inputs = [*inputs]
    for name in names:
        kitti, tum, picture = _exported_files(folder, name)
        for file, kind in ((kitti, "trajectory"), (tum, "trajectory"), (picture, "picture")):
            check_output("--export", file, kind, inputs)


def _exported_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The files of a trajectory: in KITTI's form, in TUM's form, and the picture."""
    return folder / f"{name}.txt", folder / f"{name}_tum.txt", folder / f"{name}.png"


@dataclass(frozen=True)
class Export:
    """A trajectory to write for other tools."""

    name: str
    predicted: np.ndarray  # world_from_camera [F, 3, 4], not aligned
    times: np.ndarray | None  # [F], seconds; None: not known
    truth: np.ndarray | None = None  # world_from_camera [F, 3, 4]; None: the picture has the prediction alone
    scores: dict | None = None  # the result of `score_trajectory`; the picture has the last of its alignments
    unit: str = ""  # of the predicted positions: "m", or "" where it is arbitrary

    def write(self, folder: Path) -> list[Path]:
        """Write NAME.txt (KITTI), NAME_tum.txt (TUM, if times are known) and the picture NAME.png; returns the files.

        Call `claim_export_folder` before.
        """
        kitti, tum, picture = _exported_files(folder, self.name)
        write_poses(kitti, self.predicted)
        written = [kitti]
        if self.times is not None:
            write_tum_trajectory(tum, self.times, self.predicted)
            written.append(tum)
        if self.truth is not None and self.scores is not None:
            alignment, errors = list(self.scores["alignments"].items())[-1]
            write_trajectory_picture(picture, self.name, self.truth, self.predicted, alignment, errors)
        else:
            write_path_picture(picture, self.name, self.predicted, self.unit)
        return [*written, picture]


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
