"""A sheet of pictures of the images that a test scored best, in the middle, and worst."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from path import Path
from scipy.ndimage import maximum_filter

from evaluation.metrics.depth import CROPS, MIN_DEPTH, KnownDepth, counted_pixels, resized_depth
from evaluation.metrics.depth_protocols import DepthTest
from files.atomic import atomic_write
from files.images import resize_area
from files.text import printable

LARGEST_ERROR = 0.5  # relative; what is worse has the same colour
_UNKNOWN = np.array([40, 40, 40], dtype=np.uint8)
_WIDTH = 620  # pixels of a picture on the sheet
_COLUMNS = ("input", "prediction (near is bright)", "ground truth", f"error / depth, black 0 to white {LARGEST_ERROR}")


def choose_rows(abs_rel: list[float], each: int) -> list[tuple[str, int]]:
    """("best", "median" or "worst", index) of `each` images of each kind, in order of their error.

    Fewer of each where there are not so many images; no image twice.
    """
    order = np.argsort(abs_rel, kind="stable").tolist()
    each = max(1, min(each, len(order) // 3))
    middle = (len(order) - each) // 2
    places = [("best", range(each)), ("median", range(middle, middle + each))]
    places.append(("worst", range(len(order) - each, len(order))))
    rows: dict[int, str] = {}
    for kind, positions in places:
        for position in positions:
            if 0 <= position < len(order):
                rows.setdefault(order[position], kind)
    return [(rows[index], index) for index in order if index in rows]


def draw_row(
    image: np.ndarray, predicted: np.ndarray, scale: float, truth: KnownDepth, test: DepthTest
) -> list[np.ndarray]:
    """The four pictures of an image, uint8 [H, W, 3] at the ground truth's size.

    Args:
        image: uint8 [h, w, 3] of any size.
        predicted: depth [h, w] of any size.
        scale: what it is multiplied by.

    Inverse depth is coloured from 0 to its 98th percentile in the ground truth, in prediction and truth alike. Sparse
    points are drawn larger than they are. The error is that of the pixels that count, and their area is framed.
    """
    height, width = truth.shape
    every = KnownDepth(*np.divmod(np.arange(height * width), width), np.ones(height * width), truth.shape)
    depth = np.clip(resized_depth(predicted, every, test.protocol.resized) * scale, MIN_DEPTH, test.protocol.cap)
    depth = depth.reshape(height, width)
    brightest = float(np.quantile(1 / truth.depth, 0.98))
    thick = 1 if len(truth.depth) > 0.5 * height * width else 1 + 2 * round(width / 300)

    def scatter(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values at these known pixels, drawn `thick` wide; where points overlap the largest shows; -1 elsewhere."""
        sparse = np.full((height, width), -1.0)
        sparse[truth.rows[pixels], truth.columns[pixels]] = values
        return maximum_filter(sparse, thick) if thick > 1 else sparse

    counted = counted_pixels(truth, test.protocol)
    known = truth.depth[counted]
    error = np.abs(depth[truth.rows[counted], truth.columns[counted]] - known) / known
    pictures = [
        resize_area(image, height, width),
        _colours(1 / depth, brightest, "magma"),
        _colours(scatter(np.arange(len(truth.depth)), 1 / truth.depth), brightest, "magma"),
        _colours(scatter(counted, error), LARGEST_ERROR, "hot"),
    ]
    top, bottom, left, right = CROPS[test.protocol.crop]
    rows, columns = (int(top * height), int(bottom * height)), (int(left * width), int(right * width))
    for row in (rows[0], rows[1] - 1):
        pictures[3][row, columns[0] : columns[1]] = (90, 140, 200)
    for column in (columns[0], columns[1] - 1):
        pictures[3][rows[0] : rows[1], column] = (90, 140, 200)
    return pictures


def write_sheet(file: Path, title: str, labels: list[str], rows: list[list[np.ndarray]]) -> None:
    """Rows of pictures of one image each as a PNG, `labels` beside them: whole under its name, or not at all."""
    aspect = max(row[0].shape[0] / row[0].shape[1] for row in rows)
    height = _WIDTH * aspect
    margin = 170  # pixels on the left, for the labels
    size = (margin + 4 * (_WIDTH + 6), 90 + len(rows) * (height + 6))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    grid = figure.subplots(
        len(rows), 4, squeeze=False,
        gridspec_kw={"left": margin / size[0], "right": 0.999, "top": 1 - 84 / size[1], "bottom": 3 / size[1],
                     "wspace": 6 / _WIDTH, "hspace": 6 / height},
    )  # fmt: skip
    figure.suptitle(printable(title), fontsize=12, x=0.01, ha="left", parse_math=False)  # a name may hold $
    for axes, label, pictures in zip(grid, labels, rows, strict=True):
        for axis, picture in zip(axes, pictures, strict=True):
            axis.imshow(picture, aspect="auto", interpolation="antialiased")
            axis.set_xticks([])
            axis.set_yticks([])
        place = {"x": -0.02, "y": 0.5, "transform": axes[0].transAxes, "ha": "right", "va": "center"}
        axes[0].text(s=printable(label), fontsize=11, parse_math=False, **place)
    for axis, heading in zip(grid[0], _COLUMNS, strict=True):
        axis.set_title(heading, fontsize=12)
    with atomic_write(file) as stream:
        FigureCanvasAgg(figure).print_figure(stream, format="png")


def _colours(values: np.ndarray, highest: float, name: str) -> np.ndarray:
    """Values [H, W] from 0 to `highest` as uint8 [H, W, 3]; values below 0 are unknown, and grey."""
    colours = matplotlib.colormaps[name](np.clip(values / max(highest, 1e-12), 0, 1), bytes=True)[..., :3]
    return np.where((values < 0)[..., None], _UNKNOWN, colours)
