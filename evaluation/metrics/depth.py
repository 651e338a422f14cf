"""Depth errors by the protocol that the field publishes with on KITTI.

The protocol is that of Eigen et al. (NIPS 2014) with the crop of Garg et al. (ECCV 2016), as SfMLearner (CVPR 2017)
and its successors report it: the prediction is resized bilinearly to the ground truth's size, both are compared where
the ground truth is known, the prediction is scaled so that the medians agree, then clipped to the range counted.
Metrics are taken per image, and the figure of a test set is their mean over its images.

numpy, float64; no files, no network. docs/evaluation.md says what is odd about the protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from files.errors import InputError

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
LARGEST_DEPTH = 1e20  # of predictions, in any unit; the smallest is its inverse
MIN_DEPTH = 1e-3  # metres; the ground truth's lower limit and the prediction's, as published

# Shares of the height (top, bottom) and the width (left, right) that count. The odd digits are the published ones:
# whole pixels of a 370 x 1224 image, divided by its size.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "none": (0.0, 1.0, 0.0, 1.0),
}
SCALINGS = ("median", "global", "none", "speed")
RESIZED = ("depth", "disparity")


@dataclass(frozen=True)
class DepthProtocol:
    """How a predicted depth map is compared with the ground truth; the defaults are those of the paper's Table 1."""

    cap: float = 80.0  # metres; farther ground truth does not count, farther predictions are clipped
    crop: str = "garg"
    # What the prediction is multiplied by: "median", the ratio of the image's medians; "global", one number for all
    # images, the median of these ratios; "none", 1; "speed", the true way over the predicted one (see speed_scale.py).
    scaling: str = "median"
    resized: str = "depth"  # what is resized: depth as in the paper, disparity as in many later works
    beyond_cap: bool = False  # ground truth beyond the cap counts, too; predictions are clipped to the cap all the same

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


class KnownDepth(NamedTuple):
    """The pixels of a ground-truth depth map whose depth is known, in order of rows and columns."""

    rows: np.ndarray  # int [n]
    columns: np.ndarray  # int [n]
    depth: np.ndarray  # float64 [n], metres
    shape: tuple[int, int]  # (H, W) of the map


def known_depth(truth: np.ndarray) -> KnownDepth:
    """The known pixels (depth > MIN_DEPTH) of a depth map [H, W] in metres, 0 = unknown."""
    if truth.ndim != 2:
        raise ValueError(f"truth: got shape {list(truth.shape)}, expected [H, W]")
    pixels = np.flatnonzero(truth > MIN_DEPTH)
    rows, columns = np.divmod(pixels, truth.shape[1])
    return KnownDepth(rows, columns, truth.ravel()[pixels].astype(np.float64), truth.shape)


def counted_pixels(truth: KnownDepth, protocol: DepthProtocol) -> np.ndarray:
    """Indices of the known pixels that count: inside the crop, MIN_DEPTH < depth < cap (see `beyond_cap`).

    The crop's borders are cut to whole pixels as published: 153:371, 44:1197 of a 375 x 1242 image.
    """
    height, width = truth.shape
    top, bottom, left, right = CROPS[protocol.crop]
    counted = (truth.rows >= int(top * height)) & (truth.rows < int(bottom * height))
    counted &= (truth.columns >= int(left * width)) & (truth.columns < int(right * width))
    if not protocol.beyond_cap:
        counted &= truth.depth < protocol.cap
    return np.flatnonzero(counted)


def resized_depth(
    predicted: np.ndarray, truth: KnownDepth, resized: str, neighbours: "Neighbours | None" = None
) -> np.ndarray:
    """The predicted depth [h, w] at the ground truth's known pixels: float64 [n]; `resized` as in `DepthProtocol`.

    Args:
        neighbours: `find_neighbours` of these pixels, where they are known already.
    """
    values = predicted.astype(np.float64, copy=False)
    values = values if resized == "depth" else 1 / values
    if values.size == 1:
        sampled = np.full(len(truth.depth), values.item())
    else:
        sampled = sample(values, neighbours or find_neighbours(values.shape, truth.shape, truth.rows, truth.columns))
    return sampled if resized == "depth" else 1 / sampled


def image_metrics(
    predicted: np.ndarray,
    truth: np.ndarray,
    protocol: DepthProtocol,
    where: str = "prediction",
    scale: float | None = None,
) -> dict[str, float]:
    """The metrics of one image.

    Args:
        predicted: [h, w] depth, any size, any unit if the protocol scales it.
        truth: [H, W] depth in metres, 0 = unknown.
        protocol: see `DepthProtocol`.
        where: names the prediction in errors: its index, its file.
        scale: what to multiply by where the protocol takes it from elsewhere ("global", "speed").

    Returns:
        `METRICS`, and `scale` (what the prediction was multiplied by; 1 without scaling) and `pixels` (how many
        pixels of the ground truth were compared).

    Raises:
        InputError: a depth that is not finite or not above 0, or a ground truth with no pixel to compare with.
    """
    check_prediction(predicted, where)
    known = known_depth(truth)
    counted = counted_pixels(known, protocol)
    check_counted(counted, protocol, where)
    true_depth = known.depth[counted]
    depth = resized_depth(predicted, known, protocol.resized)[counted]
    if protocol.scaling == "median":
        scale = median_ratio(true_depth, depth)
    elif protocol.scaling == "none":
        scale = 1.0
    elif scale is None:
        raise ValueError(f"scaling is {protocol.scaling!r}, expected the argument scale with it")
    return scaled_errors(true_depth, depth, scale, protocol.cap)


def median_ratio(truth: np.ndarray, predicted: np.ndarray) -> float:
    """What brings the median of predicted depths [n] to that of the true ones."""
    return float(np.median(truth) / np.median(predicted))


def scaled_errors(truth: np.ndarray, predicted: np.ndarray, scale: float, cap: float) -> dict[str, float]:
    """`depth_errors` of predicted depths [n] after scaling and clipping, with `scale` and the number of `pixels`."""
    errors = depth_errors(truth, np.clip(predicted * scale, MIN_DEPTH, cap))
    return errors | {"scale": float(scale), "pixels": len(truth)}


def check_counted(counted: np.ndarray, protocol: DepthProtocol, where: str) -> None:
    """InputError unless there is a pixel to compare; `where` starts the message."""
    if not len(counted):
        raise InputError(
            f"{where}: the ground truth has no depth between {MIN_DEPTH:g} and {protocol.cap:g} m within the "
            f"{protocol.crop} crop, expected at least one pixel to compare with"
        )


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
        "a1": np.count_nonzero(factor < 1.25) / len(factor),
        "a2": np.count_nonzero(factor < 1.25**2) / len(factor),
        "a3": np.count_nonzero(factor < 1.25**3) / len(factor),
    }


def mean_metrics(per_image: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures of a test set: each metric's mean over the images, as published (not over the pixels)."""
    if not per_image:
        raise InputError("no image was compared with ground truth, expected at least one")
    return {name: float(np.mean([image[name] for image in per_image])) for name in METRICS}


# Depths that a constant is chosen from, in steps of 0.06 %.
_CONSTANTS = np.geomspace(MIN_DEPTH, 1000, 24000)


def constant_weights(truth: np.ndarray) -> np.ndarray:
    """What `best_constant` needs of an image's true depths [n]: add it up over the images."""
    bins = np.searchsorted(_CONSTANTS, truth.clip(MIN_DEPTH, _CONSTANTS[-1]))
    return np.bincount(bins, 1 / (truth * len(truth)), minlength=len(_CONSTANTS))


def best_constant(weights: np.ndarray) -> float:
    """The depth (to 0.06 %) that, predicted everywhere, has the least Abs Rel on the images whose weights were added.

    The mean over images of mean(|c - d| / d) is least where c is the median of all depths d, each weighted by
    1 / (d x number of the image's pixels).
    """
    return float(_CONSTANTS[np.searchsorted(np.cumsum(weights), weights.sum() / 2)])


def sample_resized(image: np.ndarray, size: tuple[int, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels (rows, columns) of `image` [h, w] resized bilinearly to `size` (H, W): float64 [n].

    The resize is the published one: pixels are areas (the image's corners agree, so pixel x of the large image lies at
    (x + 0.5) w / W - 0.5 of the small one), the border is repeated outwards, and nothing is smoothed when the image
    shrinks. Only the pixels asked for are computed: a LiDAR covers some 4 % of an image.
    """
    image = image.astype(np.float64, copy=False)
    return sample(image, find_neighbours(image.shape, size, rows, columns))


class Neighbours(NamedTuple):
    """Where n pixels of a large image lie in a small one: its pixels around them, and their weights."""

    upper_left: np.ndarray  # int [n], row * w + column
    upper_right: np.ndarray
    lower_left: np.ndarray
    lower_right: np.ndarray
    right: np.ndarray  # float64 [n], weight of the right ones
    low: np.ndarray  # float64 [n], weight of the lower ones


def find_neighbours(
    small: tuple[int, ...], large: tuple[int, ...], rows: np.ndarray, columns: np.ndarray
) -> Neighbours:
    """Where the pixels (rows, columns) of an image of size `large` (H, W) lie in one of size `small` (h, w)."""
    upper, lower, low = _neighbours(rows, small[0], large[0])
    left, right, right_weight = _neighbours(columns, small[1], large[1])
    upper *= small[1]
    lower *= small[1]
    return Neighbours(upper + left, upper + right, lower + left, lower + right, right_weight, low)


def sample(image: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Bilinear samples of an image, float64 [h, w]: float64 [n]."""
    values, (upper_left, upper_right, lower_left, lower_right, right, low) = image.reshape(-1), neighbours
    left = 1 - right
    upper = values.take(upper_left) * left + values.take(upper_right) * right
    lower = values.take(lower_left) * left + values.take(lower_right) * right
    return upper * (1 - low) + lower * low


def _neighbours(index: np.ndarray, small: int, large: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels of an axis of `small` pixels between which pixel `index` of `large` lies; the second's weight."""
    # Of each of the axis's pixels first: it has fewer than are asked for.
    position = np.clip((np.arange(large) + 0.5) * (small / large) - 0.5, 0, small - 1)
    low = position.astype(np.intp)
    return low[index], np.minimum(low + 1, small - 1)[index], (position - low)[index]


def check_prediction(predicted: np.ndarray, where: str) -> None:
    """InputError unless every predicted depth [h, w] is finite and above 0, in a unit in which its square and its
    inverse are, too; `where` starts the message."""
    if predicted.ndim != 2 or not predicted.size:
        raise ValueError(f"{where}: got shape {list(predicted.shape)}, expected [h, w]")
    good = (predicted >= 1 / LARGEST_DEPTH) & (predicted <= LARGEST_DEPTH)  # False for NaN
    if not good.all():
        row, column = np.argwhere(~good)[0]
        first = predicted[row, column]
        problem = "not finite or not above 0"
        if np.isfinite(first) and first > 0:
            problem = f"outside {1 / LARGEST_DEPTH:g} to {LARGEST_DEPTH:g}"
        raise InputError(
            f"{where}: {np.count_nonzero(~good)} of {good.size} depths are {problem}, the first is "
            f"{first} at row {row}, column {column}"
        )
