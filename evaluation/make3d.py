"""Predictions of Make3D's test images: which there are, scored by the published protocol."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from path import Path
from tqdm import tqdm

from datasets.formats.make3d import ASPECT, GRID, IMAGES, Photograph, central_rows, find_photographs, read_cropped_depth
from evaluation.metrics.make3d import CAP, image_metrics, mean_metrics
from files.errors import InputError
from files.parallel import in_parallel

RATIO = 2.0


@dataclass(frozen=True)
class Make3DProtocol:
    """How predictions are compared with the laser's distances; the defaults are monodepth2's published protocol."""

    ratio: float = RATIO  # width / height of the central crop
    scaling: str = "median"
    resized: str = "nearest"
    cap: float = CAP  # metres; the farthest distance that counts


def find_test_set(root: Path, allow_missing: bool) -> tuple[list[Photograph], list[str]]:
    """The photographs whose depth is there, too, and the files that are missing for the whole set.

    Raises:
        InputError: the set is not complete, unless that is allowed; or there are more images than its own.
    """
    photographs = find_photographs(root)
    if len(photographs) > IMAGES:
        raise InputError(
            f"{root}: {len(photographs)} images, expected the {IMAGES} of Make3D's test set alone (in a folder "
            "whose name does not begin with Train)"
        )
    missing = [str(photo.depth_file) for photo in photographs if not photo.depth_file.is_file()]
    found = [photo for photo in photographs if photo.depth_file.is_file()]
    if len(found) < IMAGES and not (allow_missing and found):
        lack = f"{missing[0]}: no such file; " if missing else f"{root}: "
        raise InputError(
            f"{lack}{len(photographs)} images and {len(found)} of them with depth, expected Make3D's {IMAGES}"
            + ("; --allow-missing scores what is there" if found else "")
        )
    unnamed = IMAGES - len(photographs)
    return found, missing + ([f"{unnamed} images that are not in {root}"] if unnamed else [])


def crop_ratio(file: Path, about: dict, given: float | None) -> float:
    """Width / height of the crop that the predictions are of; InputError if --ratio gives another."""
    ratio = about.get("make3d_ratio", given or RATIO)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 1 / ASPECT <= ratio <= 20:
        raise InputError(f"{file}: make3d_ratio is {str(ratio)[:40]}, expected a number from 0.75 to 20")
    if given and ratio != given:
        raise InputError(f"{file}: predictions of images cropped to {ratio:g} : 1, --ratio says {given:g}")
    return float(ratio)


def check_names(file: Path, depth: Mapping[str, np.ndarray], photographs: list[Photograph], missing: list[str]) -> None:
    """InputError unless the file has a prediction for each photograph, and (if none is missing) for nothing else."""
    names = {photo.name for photo in photographs}
    absent, surplus = sorted(names - depth.keys()), sorted(depth.keys() - names)
    if absent or (surplus and not missing):
        example = f"{absent[0]} is not predicted" if absent else f"{surplus[0]} is none of the images"
        raise InputError(
            f"{file}: predictions of {len(depth)} images do not fit the {len(names)} images: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are of no image)"
        )


def score_photographs(
    photographs: list[Photograph], depth: Mapping[str, np.ndarray], protocol: Make3DProtocol, file: Path, workers: int
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Metrics of each image: the prediction's, and those of a constant.

    Args:
        depth: predicted, [h, w] by the photograph's name.
        file: of the predictions, for errors.
        workers: threads.
    """

    def score_image(item: tuple[int, Photograph]) -> tuple[dict[str, float], dict[str, float]]:
        index, photo = item
        truth = read_cropped_depth(photo.depth_file, protocol.ratio)
        if not (truth > 0).any():
            raise InputError(f"{photo.depth_file}: no distance above 0 in the rows that the cropped image shows")
        where = f"{file}, prediction {index} ({photo.name})"
        predicted = image_metrics(depth[photo.name], truth, protocol.cap, protocol.resized, protocol.scaling, where)
        return predicted, image_metrics(np.ones((1, 1)), truth, protocol.cap, where=where)

    results = in_parallel(score_image, list(enumerate(photographs)), workers)
    return list(tqdm(results, total=len(photographs), desc="scoring", unit="image"))


def summarise_make3d(
    scores: list[tuple[dict[str, float], dict[str, float]]],
    protocol: Make3DProtocol,
    averaged: str,
    missing: list[str],
) -> dict:
    """The result as written to JSON: the protocol as a line and in parts, the figures, and those of the baseline.

    Args:
        averaged: what each prediction is a mean over, as `describe_averages` has it.
    """
    predicted, constant = zip(*scores, strict=True)
    scales = np.array([image["scale"] for image in predicted])
    scale = float(np.median(scales))
    images = f"{len(scores)} of the {IMAGES} test images of Make3D"
    if missing:
        images = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF ALL IMAGES: {images.upper()}"
    rows, grid_rows = central_rows(2272, protocol.ratio), central_rows(GRID[0], protocol.ratio)
    line = (
        f"protocol: {images}; central crop {protocol.ratio:g} : 1 (rows {rows.start} to {rows.stop - 1} of 2272, "
        f"{grid_rows.start} to {grid_rows.stop - 1} of {GRID[0]}); ground truth: the laser's distance, as published; "
        f"scaling: {'median per image' if protocol.scaling == 'median' else 'none'}; resized to the truth's size: "
        f"{protocol.resized}; below {protocol.cap:g} m{' (C1)' if protocol.cap == CAP else ''}"
        f"{averaged}"
    )
    return {
        "protocol": {"line": line, **asdict(protocol)},
        "images": {"expected": IMAGES, "found": len(scores), "missing": missing},
        "result": mean_metrics(predicted) | {"scale": scale, "scale_spread": float(np.std(scales / scale))},
        "baselines": {"constant": mean_metrics(constant)},
    }
