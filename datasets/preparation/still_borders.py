"""Borders of the picture that are the same in all frames: black bars, and the bonnet of the car that has the camera."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter1d

from datasets.preparation.image_motion import find_again
from datasets.preparation.static_frames import small_grey
from files.images import resize_area

_ANALYSIS_WIDTH = 208  # pixels
_SAMPLES = 200  # pixels of each row and column that tell whether it is black
_BLACK = 24  # grey levels: bars are darker than this in all frames, compression included
_HIGHEST_BONNET = 0.55  # share of the height: a bonnet begins below it
_STRIPS = 8  # columns of the picture in which the bonnet's edge is searched
_FEWEST_STRIPS = 6  # that must show it
_BAND = 0.08  # share of the height above the edge that is compared with all below it
_CALMER = 0.5  # change from frame to frame below the edge, as a share of that above it
_SURELY_CALMER = 0.2  # the same: where no edge is needed, since a bonnet may be as bright as the road
_LEAST_CHANGE = 1.0  # grey levels above the edge
_STILL_EDGE = 0.6  # |gradient of the mean image| / mean |gradient|: 1 at an edge that stands still
_WEAKEST_EDGE = 3.0  # grey levels per pixel
_LARGEST_ARC = 0.08  # share of the height by which the edge may leave its median
_FEWEST_FRAMES = 8
_ANALYSED = 200  # frames that are looked at, about
_MARGIN = 2  # analysis pixels that are cut off beyond the edge found
# A bonnet that mirrors what moves: below a still edge, tracked corners move down more slowly than the road above it.
MOST_PAIRS = 15  # of neighbouring frames that are tracked, about
_ROAD_BAND = 0.18  # share of the height above the edge whose motion is that of the road
_SLOW = 0.5  # of the road's motion: the road below the band moves faster than the band
_LEAST_ROAD_MOTION = 0.8  # analysis pixels
_FEWEST_ON_ROAD = 4  # corners of a pair
_MIRRORING = (0.6, 0.92)  # share of the height between which the edge is searched
_ALL_BUT_ONE = _STRIPS - 1  # strips with a still edge
_EDGE_REACH = 0.04  # share of the height by which the strips' edges may differ
_MOSTLY_SLOW = 0.8  # share of the corners below the edge
_FEWEST_BELOW, _FEWEST_PAIRS = 15, 3


@dataclass(frozen=True)
class Borders:
    """Pixels at each side that show nothing of the scene, and how they were found."""

    bars: tuple[int, int, int, int]  # black: left, top, right, bottom
    bonnet: int  # rows at the bottom, above a black bar

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Pixels to leave out: left, top, right, bottom."""
        left, top, right, bottom = self.bars
        return left, top, right, bottom + self.bonnet

    def __str__(self) -> str:
        sides = zip(("left", "top", "right", "bottom"), self.bars, strict=True)
        found = [f"black bar of {count} pixels at the {side}" for side, count in sides if count]
        if self.bonnet:
            found.append(f"bonnet in the lowest {self.bonnet} rows{' above it' if self.bars[3] else ''}")
        return ", ".join(found) or "no border that is the same in all frames"


class StillBorders:
    """Finds the borders from frames of one size, given one by one; memory does not grow with their number."""

    def __init__(self) -> None:
        self.frames = 0
        self._brightest_rows = self._brightest_columns = np.zeros(0)
        self._before = self._sum = self._vertical_sum = self._change_sum = np.zeros(0)
        self.size = (0, 0)  # (height, width)
        self._corners: list[tuple[np.ndarray, np.ndarray]] = []  # places (x, y) [n, 2], motion down [n] of each pair

    def add(self, image: np.ndarray) -> None:
        """Take a frame: uint8 [H, W, 3]."""
        # Nearly the brightest of some 200 pixels: a hot pixel or a compressed edge is no content.
        down, across = (max(1, side // _SAMPLES) for side in image.shape[:2])
        rows = np.quantile(image[:, ::across].max(2), 0.98, axis=1)
        columns = np.quantile(image[::down].max(2), 0.98, axis=0)
        height = max(2, round(image.shape[0] * _ANALYSIS_WIDTH / image.shape[1]))
        small = gaussian_filter(resize_area(image.mean(2, dtype=np.float32), height, _ANALYSIS_WIDTH), 0.75)
        vertical = np.abs(np.gradient(small, axis=0))
        if self.frames == 0:
            self.size = image.shape[:2]
            self._brightest_rows, self._brightest_columns = rows, columns
            self._sum, self._vertical_sum = small.astype(np.float64), vertical.astype(np.float64)
            self._change_sum = np.zeros(small.shape)
        else:
            self._brightest_rows = np.maximum(self._brightest_rows, rows)
            self._brightest_columns = np.maximum(self._brightest_columns, columns)
            self._sum += small
            self._vertical_sum += vertical
            self._change_sum += np.abs(small - self._before)
        self._before = small
        self.frames += 1

    def follow(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take the motion from a frame to the next one, both uint8 [H, W, 3], of about `MOST_PAIRS` pairs."""
        grey = small_grey(first), small_grey(second)
        corners, places, found = find_again(*grey)
        scale = _ANALYSIS_WIDTH / grey[0].shape[1]
        self._corners.append(((corners[found] + 0.5) * scale - 0.5, scale * (places - corners)[found, 1]))

    def find(self) -> Borders:
        """The borders, as far as the frames so far show them; none with fewer than 8 frames."""
        if self.frames < _FEWEST_FRAMES:
            return Borders((0, 0, 0, 0), 0)
        top, bottom = _dark_ends(self._brightest_rows)
        left, right = _dark_ends(self._brightest_columns)
        return Borders((left, top, right, bottom), self._bonnet(top, bottom))

    def _bonnet(self, top: int, bottom: int) -> int:
        """Rows at the bottom of the picture, above a bar of `bottom` rows, that show the car's bonnet.

        In most strips of the picture there is a row below which frames change by less than half as much as above it,
        with an edge that stands still in all frames, or by less than a fifth. Lane markings and the horizon may stand
        still, too, but the road below them moves. A bonnet that mirrors trees and houses may change as much as the
        road; `_mirroring_edges` looks at its motion.
        """
        scale = self.size[0] / self._sum.shape[0]
        first, end = int(np.ceil(top / scale)), int((self.size[0] - bottom) // scale)
        if end - first < 16:
            return 0
        vertical = np.abs(np.gradient(self._sum[first:end], axis=0)) / self.frames
        usual = self._vertical_sum[first:end] / self.frames
        still = (vertical > _STILL_EDGE * usual) & (vertical > _WEAKEST_EDGE)
        change = self._change_sum[first:end] / self.frames
        edges = []
        for columns in np.array_split(np.arange(change.shape[1]), _STRIPS):
            edge, ratio = _calm_below(change[:, columns].mean(1))
            if ratio < _SURELY_CALMER or still[edge - 2 : edge + 3, columns].any(0).mean() > 0.5:
                edges += [edge] if ratio < _CALMER else []
        middle = np.median(edges) if edges else 0
        edges = [edge for edge in edges if abs(edge - middle) < _LARGEST_ARC * len(change)]
        if len(edges) < _FEWEST_STRIPS:
            edges = self._mirroring_edges(still, first)
        if not edges:
            return 0
        return int(np.ceil((end - first - min(edges) + _MARGIN) * scale))

    def _mirroring_edges(self, still: np.ndarray, first: int) -> list[int]:
        """The row of the edge of a bonnet that mirrors what moves, alone in a list; none without one.

        What a bonnet mirrors is farther away than the road would be at that place, so that it moves more slowly. The
        edge lies near a row at which all strips but one show an edge that stands still, and below which most corners
        move down by less than half as much as those of the road just above it. Of several such rows, it is the one
        whose still edge is longest.

        Args:
            still: where an edge stands still [H, W], from the picture's analysis row `first` on.
        """
        height = len(still)
        near = maximum_filter1d(still.astype(np.float64), 5, axis=0)
        columns = np.array_split(np.arange(still.shape[1]), _STRIPS)
        shown = np.stack([near[:, strip].mean(1) for strip in columns], 1)  # share of each strip [H, strips]
        reach = max(1, int(_EDGE_REACH * height))
        strips = maximum_filter1d((shown > 0.5).astype(np.uint8), 2 * reach + 1, axis=0).sum(1)
        low, high = (int(share * height) for share in _MIRRORING)
        candidates = np.zeros(height, dtype=bool)
        for row in range(low, high):
            if strips[row] >= _ALL_BUT_ONE and self._slow_below(first + row, height):
                candidates[row - reach : row + reach + 1] = True
        length = maximum_filter1d(shown, 3, axis=0).mean(1)
        return [int(np.where(candidates, length, -1).argmax())] if candidates.any() else []

    def _slow_below(self, row: int, height: int) -> bool:
        """Whether most corners below an analysis row move down by less than half as much as the road above it."""
        slow = below = pairs = 0
        columns: set[int] = set()
        for places, down in self._corners:
            x, y = places.T
            road = (y > row - _ROAD_BAND * height) & (y < row - 2)
            if road.sum() < _FEWEST_ON_ROAD or np.median(down[road]) < _LEAST_ROAD_MOTION:
                continue
            lower = y > row + 1
            late = lower & (down < _SLOW * np.median(down[road]))
            slow, below, pairs = slow + int(late.sum()), below + int(lower.sum()), pairs + 1
            columns |= set((x[late] * _STRIPS // _ANALYSIS_WIDTH).astype(int).tolist())
        enough = below >= _FEWEST_BELOW and pairs >= _FEWEST_PAIRS and len(columns) >= _FEWEST_STRIPS
        return enough and slow >= _MOSTLY_SLOW * below


def borders_of(frames: Iterable[np.ndarray | None], count: int) -> Borders:
    """The borders of a film from one pass over its frames, uint8 [H, W, 3] each; None: damaged.

    Args:
        count: about how many there are.
    """
    borders = StillBorders()
    every, pair_every = max(1, count // _ANALYSED), max(1, count // MOST_PAIRS)
    before = None
    for number, frame in enumerate(frames):
        if frame is not None and before is not None:
            borders.follow(before, frame)
        before = frame if number % pair_every == 0 else None
        if frame is not None and number % every == 0:
            borders.add(frame)
    return borders.find()


def _calm_below(change: np.ndarray) -> tuple[int, float]:
    """The row below which all rows of a profile [H] change by least compared with those just above it, and the ratio.

    The edge is blurred over some rows, which count neither above nor below. (0, inf) if nothing moves.
    """
    height = len(change)
    band = max(2, round(_BAND * height))
    rows = range(max(band + 1, round(_HIGHEST_BONNET * height)), height - 4)
    ratios = {}
    for row in rows:
        above = change[row - 1 - band : row - 1].mean()
        if above > _LEAST_CHANGE:
            ratios[row] = np.quantile(change[row + 2 :], 0.9) / above
    row = min(ratios, key=lambda row: ratios[row], default=0)
    return row, float(ratios.get(row, np.inf))


def _dark_ends(brightest: np.ndarray) -> tuple[int, int]:
    """The number of values below the level of black at the beginning and at the end; none if all are."""
    bright = np.flatnonzero(brightest > _BLACK)
    if len(bright) == 0:
        return 0, 0
    return int(bright[0]), int(len(brightest) - 1 - bright[-1])
