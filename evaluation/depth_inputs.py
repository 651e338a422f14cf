"""A file of predictions beside the lists that it is to be scored on, and what scoring needs besides."""

import numpy as np
from path import Path

from datasets.formats.kitti_folders import read_image_list
from evaluation.baselines import mean_depth_map
from evaluation.depth_lists import LISTS
from evaluation.depth_scoring import Predictions, Sets
from evaluation.metrics.depth_protocols import DepthTest
from evaluation.predictions import ImageDepths, load_depth
from evaluation.speed_scale import SpeedScale, speed_scales, true_distances
from files.errors import InputError
from files.untrusted import one_line, read_npy_rows

Distances = dict[str, tuple[list[int], np.ndarray]]  # by image: frame numbers, and the predicted distances


def load_plain(file: Path, sets: Sets, disparity: bool) -> Predictions:
    """Predictions of another code base: a plain `.npy` [N, h, w] in the order of the list.

    Args:
        sets: of one list, whose N images the file predicts.
        disparity: the file holds 1 / depth, as monodepth2's `disps_*.npy` do.

    Raises:
        InputError: no such file, damaged, another number of images, or several lists.
    """
    lists = {tuple(images.listed) for images in sets.values()}
    if len(lists) > 1:
        raise InputError(
            f"{file}: a plain .npy is in the order of one list, but the protocols have {len(lists)}; give --list"
        )
    (listed,) = lists
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected predictions")
    try:
        values = read_npy_rows(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: no readable .npy ({one_line(error)})") from None
    if values.ndim != 3 or values.dtype.kind != "f" or len(values) != len(listed) or 0 in values.shape:
        raise InputError(
            f"{file}: {values.dtype} {[*values.shape]}, expected floating-point numbers [{len(listed)}, h, w]"
        )

    def depth(row: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what overflows is refused as not finite, with its place, when it is scored
            row = row.astype(np.float32)
        if not disparity:
            return row
        if not (row > 0).all():
            raise InputError(f"{file}: has disparities that are not above 0")
        return 1 / row

    return Predictions(file, ImageDepths(list(listed), values, depth), {})


def load_listed(file: Path, names: list[str], sets: Sets, disparity: bool = False) -> tuple[Predictions, Distances]:
    """Predicted depth and distances (if any) by image name; InputError unless the file fits the lists.

    Args:
        names: the images to be scored.
        sets: the lists that they come from.
        disparity: a plain `.npy` holds 1 / depth.
    """
    if file.suffix == ".npy":
        return load_plain(file, sets, disparity), {}
    predicted, arrays, about = load_depth(file)
    listed = {name for images in sets.values() for name in images.listed}
    if any(images in LISTS for images, _ in sets):  # of predictions of all 697, the 652 may be scored alone
        listed.update(read_image_list(LISTS["eigen"], Path("")))
    absent = [name for name in names if name not in predicted]
    surplus = sorted(predicted.keys() - listed)
    if absent or surplus:
        example = f"{absent[0]:.200} is not predicted" if absent else f"{surplus[0]:.200} is not listed"
        raise InputError(
            f"{file}: predictions of {len(predicted)} images do not fit the list of {len(listed)}: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are not listed)"
        )
    distances: Distances = {}
    stored = arrays.get("distances", arrays.get("ways"))  # "ways" in files of older versions
    if stored is not None:
        frames = arrays.get("snippet_frames", np.zeros(0))
        count = len(predicted)
        if frames.dtype.kind != "i" or frames.ndim != 2 or stored.shape != (count, frames.shape[1] - 1):
            raise InputError(
                f"{file}: distances of {[*stored.shape]} and snippet_frames of {[*frames.shape]}, "
                f"expected [{count}, n - 1] and whole numbers [{count}, n]"
            )
        distances = dict(zip(predicted, zip(frames.tolist(), stored, strict=True), strict=True))
    return Predictions(file, predicted, about), distances


def find_speed_scales(
    tests: dict[str, DepthTest], sets: Sets, distances: Distances, root: Path, file: Path
) -> dict[str, dict[str, SpeedScale]]:
    """By test and image, the scale from the vehicle's speed, for the tests that are scaled by it.

    Args:
        root: the folder that the images' names are relative to.
        file: of the predictions, for errors.

    Raises:
        InputError: the predictions hold no distances, or the drives have no OXTS packets.
    """
    scales: dict[str, dict[str, SpeedScale]] = {}
    for name, test in tests.items():
        if test.protocol.scaling != "speed":
            continue
        found = sets[test.images, test.ground_truth].found
        if not distances:
            raise InputError(f"{file}: holds no poses; predict with --scaling speed")
        true = [true_distances(root, image, distances[image][0]) for image in found]
        predicted = np.stack([distances[image][1] for image in found])
        scales[name] = dict(zip(found, speed_scales(found, true, predicted), strict=True))
    return scales


def find_mean_map(about: dict, training_data: Path | None, workers: int) -> tuple[np.ndarray | None, str]:
    """The mean depth map of the training set and a line that describes it; or None and the reason.

    Args:
        about: how the predictions were made, which may name the training set.
        training_data: a prepared data set in place of that one; InputError if it has no depth.
        workers: threads that read.
    """
    folder = training_data or about.get("training_data")
    if not isinstance(folder, str):
        return None, "none: the predictions do not name the network's training data (--training-data PREPARED)"
    try:
        mean, count = mean_depth_map(Path(folder), workers)
    except InputError as error:
        if training_data:
            raise
        return None, f"none: {error}; --training-data PREPARED names another"
    return mean, f"of {count} depth maps of {folder}"
