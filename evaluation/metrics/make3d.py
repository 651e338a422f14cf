"""Depth errors on Make3D as published (C1): distances below 70 m, the prediction scaled by the medians and clipped.

The protocol is that of the one evaluation that was published as code, monodepth2's (nianticlabs/monodepth2, issue 89);
SfMLearner's own and monodepth's are lost. docs/evaluation.md says where the papers differ, and what is odd.

numpy, float64; no files, no network.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.depth import check_prediction, depth_errors, sample_resized
from files.errors import InputError

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log10", "log10", "rmse_log")
RESIZED = ("nearest", "depth", "disparity")
CAP = 70.0  # metres


def image_metrics(
    predicted: np.ndarray,
    truth: np.ndarray,
    cap: float = CAP,
    resized: str = "nearest",
    scaling: str = "median",
    where: str = "prediction",
) -> dict[str, float]:
    """The metrics of one image.

    Args:
        predicted: [h, w] depth of the cropped photograph, any size, any unit.
        truth: [H, W] distance in metres of the same crop, 0 = unknown.
        cap: metres; farther truth does not count, farther predictions are clipped.
        resized: how the prediction is brought to the truth's size: "nearest", as published; "depth" or "disparity",
            bilinearly.
        scaling: "median", to the truth's median, or "none".
        where: names the prediction in errors.

    Returns:
        `METRICS`, `scale` and `pixels`. `log10` is the mean of |log10 p - log10 d|; `rmse_log10` and `rmse_log` are
        roots of mean squares, of decimal and of natural logarithms.

    Raises:
        InputError: a depth that is not finite or not above 0, or a truth with no pixel to compare with.
    """
    if resized not in RESIZED:
        raise ValueError(f"resized is {resized!r}, expected one of {', '.join(RESIZED)}")
    if scaling not in ("median", "none"):
        raise ValueError(f"scaling is {scaling!r}, expected median or none")
    check_prediction(predicted, where)
    rows, columns = np.nonzero((truth > 0) & (truth < cap))
    if not len(rows):
        raise InputError(f"{where}: the ground truth has no distance between 0 and {cap:g} m, expected at least one")
    known = truth[rows, columns].astype(np.float64)
    if resized == "nearest":
        compared = nearest(predicted, truth.shape, rows, columns)
    elif resized == "depth":
        compared = sample_resized(predicted, truth.shape, rows, columns)
    else:
        compared = 1 / sample_resized(1 / predicted.astype(np.float64), truth.shape, rows, columns)
    scale = float(np.median(known) / np.median(compared)) if scaling == "median" else 1.0
    compared = np.minimum(compared * scale, cap)
    errors = depth_errors(known, compared)
    log10 = np.log10(compared) - np.log10(known)
    errors |= {"rmse_log10": float(np.sqrt(np.mean(log10 * log10))), "log10": float(np.mean(np.abs(log10)))}
    return {name: errors[name] for name in METRICS} | {"scale": scale, "pixels": len(known)}


def nearest(image: np.ndarray, size: tuple[int, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels (rows, columns) of `image` [h, w] at another size (H, W), as OpenCV's nearest neighbour: float64 [n].

    It takes pixel floor(x w / W), which is not the nearest: the upper left corner of the area, not its middle.
    """
    row = rows * image.shape[0] // size[0]
    column = columns * image.shape[1] // size[1]
    return image[row, column].astype(np.float64)


def mean_metrics(per_image: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures of the test set: each metric's mean over the images."""
    if not per_image:
        raise InputError("no image was compared with ground truth, expected at least one")
    return {name: float(np.mean([image[name] for image in per_image])) for name in METRICS}
