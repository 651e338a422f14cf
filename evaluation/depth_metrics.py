"""Depth errors by the protocol that the field publishes with on KITTI.

The protocol is that of Eigen et al. (NIPS 2014) with the crop of Garg et al. (ECCV 2016), as SfMLearner (CVPR 2017)
and its successors report it: the prediction is resized bilinearly to the ground truth's size, both are compared where
the ground truth is known, the prediction is scaled so that the medians agree, then clipped to the range counted.
Metrics are taken per image, and the figure of a test set is their mean over its images.

numpy, float64; no files, no network. docs/evaluation.md says what is odd about the protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from errors import InputError

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
MIN_DEPTH = 1e-3  # metres; the ground truth's lower limit and the prediction's, as published

# Shares of the height (top, bottom) and the width (left, right) that count. The odd digits are the published ones:
# whole pixels of a 370 x 1224 image, divided by its size.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "none": (0.0, 1.0, 0.0, 1.0),
}
SCALINGS = ("median", "none")
RESIZED = ("depth", "disparity")


@dataclass(frozen=True)
class DepthProtocol:
    """How a predicted depth map is compared with the ground truth; the defaults are those of the paper's Table 1."""

    cap: float = 80.0  # metres; farther ground truth does not count, farther predictions are clipped
    crop: str = "garg"
    scaling: str = "median"  # of the prediction: per image to the ground truth's median, or none
    resized: str = "depth"  # what is resized: depth as in the paper, disparity as in many later works

    def __post_init__(self):
        for name, value, choices in (
            ("crop", self.crop, CROPS),
            ("scaling", self.scaling, SCALINGS),
            ("resized", self.resized, RESIZED),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        if not self.cap > MIN_DEPTH:
            raise ValueError(f"cap is {self.cap}, expected metres above {MIN_DEPTH}")


def image_metrics(
    predicted: np.ndarray, truth: np.ndarray, protocol: DepthProtocol, where: str = "prediction"
) -> dict[str, float]:
    """The metrics of one image.

    Args:
        predicted: [h, w] depth, any size, any unit if the protocol scales it.
        truth: [H, W] depth in metres, 0 = unknown.
        protocol: see `DepthProtocol`.
        where: names the prediction in errors: its index, its file.

    Returns:
        `METRICS`, and `scale` (what the prediction was multiplied by; 1 without scaling) and `pixels` (how many
        pixels of the ground truth were compared).

    Raises:
        InputError: a depth that is not finite or not above 0, or a ground truth with no pixel to compare with.
    """
    check_prediction(predicted, where)
    rows, columns = valid_pixels(truth, protocol.cap, protocol.crop)
    if not len(rows):
        raise InputError(
            f"{where}: the ground truth has no depth between {MIN_DEPTH:g} and {protocol.cap:g} m within the "
            f"{protocol.crop} crop, expected at least one pixel to compare with"
        )
    known = truth[rows, columns].astype(np.float64)
    if protocol.resized == "depth":
        compared = sample_resized(predicted, truth.shape, rows, columns)
    else:
        compared = 1 / sample_resized(1 / predicted.astype(np.float64), truth.shape, rows, columns)
    scale = np.median(known) / np.median(compared) if protocol.scaling == "median" else 1.0
    errors = depth_errors(known, np.clip(compared * scale, MIN_DEPTH, protocol.cap))
    return errors | {"scale": float(scale), "pixels": len(rows)}


def depth_errors(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The seven metrics of depths [n] above 0: errors relative (Abs Rel, Sq Rel), in metres (RMSE), in the logarithm
    (RMSE log), and the shares of pixels within a factor of 1.25, 1.25^2 and 1.25^3 of the truth (a1, a2, a3)."""
    difference = predicted - truth
    squared = difference * difference
    log_difference = np.log(predicted) - np.log(truth)
    factor = np.maximum(predicted / truth, truth / predicted)
    return {
        "abs_rel": float(np.mean(np.abs(difference) / truth)),
        "sq_rel": float(np.mean(squared / truth)),
        "rmse": float(np.sqrt(np.mean(squared))),
        "rmse_log": float(np.sqrt(np.mean(log_difference * log_difference))),
        "a1": float(np.mean(factor < 1.25)),
        "a2": float(np.mean(factor < 1.25**2)),
        "a3": float(np.mean(factor < 1.25**3)),
    }


def mean_metrics(per_image: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures of a test set: each metric's mean over the images, as published (not over the pixels)."""
    if not per_image:
        raise InputError("no image was compared with ground truth, expected at least one")
    return {name: float(np.mean([image[name] for image in per_image])) for name in METRICS}


def valid_pixels(truth: np.ndarray, cap: float, crop: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the ground truth's pixels that count: inside the crop, MIN_DEPTH < depth < cap.

    The crop's borders are cut to whole pixels as published: 153:371, 44:1197 of a 375 x 1242 image.
    """
    if truth.ndim != 2:
        raise ValueError(f"truth: got shape {list(truth.shape)}, expected [H, W]")
    height, width = truth.shape
    top, bottom, left, right = CROPS[crop]
    first_row, first_column = int(top * height), int(left * width)
    inside = truth[first_row : int(bottom * height), first_column : int(right * width)]
    rows, columns = np.nonzero((inside > MIN_DEPTH) & (inside < cap))
    return rows + first_row, columns + first_column


def sample_resized(image: np.ndarray, size: tuple[int, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels (rows, columns) of `image` [h, w] resized bilinearly to `size` (H, W): float64 [n].

    The resize is the published one: pixels are areas (the image's corners agree, so pixel x of the large image lies at
    (x + 0.5) w / W - 0.5 of the small one), the border is repeated outwards, and nothing is smoothed when the image
    shrinks. Only the pixels asked for are computed: a LiDAR covers some 4 % of an image.
    """
    low_row, high_row, row_weight = _neighbours(rows, image.shape[0], size[0])
    low_column, high_column, column_weight = _neighbours(columns, image.shape[1], size[1])
    image = image.astype(np.float64, copy=False)
    upper = image[low_row, low_column] * (1 - column_weight) + image[low_row, high_column] * column_weight
    lower = image[high_row, low_column] * (1 - column_weight) + image[high_row, high_column] * column_weight
    return upper * (1 - row_weight) + lower * row_weight


def _neighbours(index: np.ndarray, small: int, large: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels of an axis of `small` pixels between which pixel `index` of `large` lies; the second's weight."""
    position = np.clip((index + 0.5) * (small / large) - 0.5, 0, small - 1)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, small - 1), position - low


def check_prediction(predicted: np.ndarray, where: str) -> None:
    """InputError unless every predicted depth [h, w] is finite and above 0; `where` starts the message."""
    if predicted.ndim != 2 or not predicted.size:
        raise ValueError(f"{where}: got shape {list(predicted.shape)}, expected [h, w]")
    good = np.isfinite(predicted) & (predicted > 0)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        raise InputError(
            f"{where}: {np.count_nonzero(~good)} of {good.size} depths are not finite or not above 0, the first is "
            f"{predicted[row, column]} at row {row}, column {column}"
        )
