"""Borders of the picture that are the same in all frames: black bars, and the bonnet of the car that has the camera."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from files.images import resize_area

_ANALYSIS_WIDTH = 208  # pixels
_BLACK = 24  # grey levels: bars are darker than this in all frames, compression included
_HIGHEST_BONNET = 0.55  # share of the height: a bonnet begins below it
_STILL_EDGE = 0.6  # |gradient of the mean image| / mean |gradient|: 1 at an edge that stands still
_WEAKEST_EDGE = 4.0  # grey levels per pixel
_SHARE_OF_WIDTH = 0.7  # that a bonnet's edge spans
_STEEPEST = 2  # pixels per column that a bonnet's edge rises or falls
_CALMER = 0.5  # change from frame to frame below a bonnet's edge, as a share of that above it
_FEWEST_FRAMES = 8
_MARGIN = 1  # analysis pixels that are cut off beyond the edge found


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
        self._before = self._sum = self._gradient_sum = self._change_sum = np.zeros(0)
        self.size = (0, 0)  # (height, width)

    def add(self, image: np.ndarray) -> None:
        """Take a frame: uint8 [H, W, 3]."""
        grey = image.max(2)
        # The second brightest of a hundred: a hot pixel or a compressed edge is no content.
        rows, columns = np.quantile(grey, 0.98, axis=1), np.quantile(grey, 0.98, axis=0)
        height = max(2, round(image.shape[0] * _ANALYSIS_WIDTH / image.shape[1]))
        small = gaussian_filter(resize_area(image.mean(2, dtype=np.float32), height, _ANALYSIS_WIDTH), 0.75)
        gradient = np.stack(np.gradient(small))
        if self.frames == 0:
            self.size = image.shape[:2]
            self._brightest_rows, self._brightest_columns = rows, columns
            self._sum, self._gradient_sum = small.astype(np.float64), np.abs(gradient).astype(np.float64)
            self._change_sum = np.zeros(small.shape)
        else:
            self._brightest_rows = np.maximum(self._brightest_rows, rows)
            self._brightest_columns = np.maximum(self._brightest_columns, columns)
            self._sum += small
            self._gradient_sum += np.abs(gradient)
            self._change_sum += np.abs(small - self._before)
        self._before = small
        self.frames += 1

    def find(self) -> Borders:
        """The borders, as far as the frames so far show them; none with fewer than 8 frames."""
        if self.frames < _FEWEST_FRAMES:
            return Borders((0, 0, 0, 0), 0)
        top, bottom = _dark_ends(self._brightest_rows)
        left, right = _dark_ends(self._brightest_columns)
        return Borders((left, top, right, bottom), self._bonnet(top, bottom))

    def _bonnet(self, top: int, bottom: int) -> int:
        """Rows at the bottom of the picture, above a bar of `bottom` rows, that show the car's bonnet.

        An edge that stands still in all frames spans the picture in its lower part, and below it frames change by less
        than above it. Lane markings stand still, too, but span nothing. The horizon spans the picture, but below it
        frames change by more than above.
        """
        height = self.size[0]
        scale = height / self._sum.shape[0]
        first, end = int(np.ceil(top / scale)), int((height - bottom) // scale)
        mean = self._sum[first:end] / self.frames
        if mean.shape[0] < 16:
            return 0
        vertical = np.abs(np.gradient(mean, axis=0))
        usual = self._gradient_sum[0, first:end] / self.frames
        still = (vertical > _STILL_EDGE * usual) & (vertical > _WEAKEST_EDGE)
        start = int(_HIGHEST_BONNET * len(mean))
        path = _best_path((np.where(still, vertical.clip(0, 40), 0))[start:]) + start
        columns = np.arange(len(path))
        near = [still[np.clip(path + d, 0, len(mean) - 1), columns] for d in (-1, 0, 1)]
        if np.any(near, axis=0).mean() < _SHARE_OF_WIDTH:
            return 0
        change = self._change_sum[first:end] / self.frames
        rows = np.arange(len(mean))[:, None]
        depth = max(2, len(mean) - int(np.median(path)))
        below = change[rows > path + 2]
        above = change[(rows < path - 2) & (rows > path - 2 - depth)]
        if below.size == 0 or above.size == 0 or below.mean() > _CALMER * above.mean():
            return 0
        highest = int(np.quantile(path, 0.02)) - _MARGIN
        return int(np.ceil((end - highest) * scale))


def _dark_ends(brightest: np.ndarray) -> tuple[int, int]:
    """The number of values below the level of black at the beginning and at the end; none if all are."""
    bright = np.flatnonzero(brightest > _BLACK)
    if len(bright) == 0:
        return 0, 0
    return int(bright[0]), int(len(brightest) - 1 - bright[-1])


def _best_path(score: np.ndarray) -> np.ndarray:
    """The row [W] in each column of the connected path from left to right with the highest sum of scores [H, W]."""
    height, width = score.shape
    total = score[:, 0].copy()
    steps = np.arange(-_STEEPEST, _STEEPEST + 1)
    came_from = np.zeros((height, width), dtype=int)
    for column in range(1, width):
        padded = np.pad(total, _STEEPEST, constant_values=-1.0)
        options = np.stack([padded[_STEEPEST + step : _STEEPEST + step + height] for step in steps])
        options -= 1e-3 * np.abs(steps)[:, None]
        best = options.argmax(0)
        came_from[:, column] = np.arange(height) + steps[best]
        total = options.max(0) + score[:, column]
    path = np.zeros(width, dtype=int)
    path[-1] = total.argmax()
    for column in range(width - 1, 0, -1):
        path[column - 1] = came_from[path[column], column]
    return path
