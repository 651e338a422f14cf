"""The rays of a sensor: a pinhole camera, or a spinning LiDAR.

The rays form a grid, direction(i, j) = scale_i * column_j + row_i. A camera's rays are (x_j, y_i, 1). A LiDAR's are
(cos e_i cos a_j, cos e_i sin a_j, sin e_i) with elevations e and azimuths a. A linear form of the direction is thus the
sum of a row and a column, which `first_hits.py` uses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from datasets.synthetic.sensors import LIDAR_RANGE

NEAR = 0.1  # metres: objects nearer to the sensor are not seen
FAR = 260.0  # metres: a camera sees no object beyond it, only ground and sky

# Corners [N, P, 3] of N convex objects in the sensor's frame, and the pairs of corners that are joined by an edge, to
# the rectangle of the grid that each can cover: int [N, 4], first row, one past the last row, the same for columns.
Rectangles = Callable[[np.ndarray, list[tuple[int, int]]], np.ndarray]


class Rays(NamedTuple):
    """A grid of H x W rays, direction(i, j) = scale[i] * columns[j] + rows[i], in the sensor's frame."""

    rows: np.ndarray  # [H, 3]
    columns: np.ndarray  # [W, 3]
    scale: np.ndarray | None  # [H]; None: 1, and the grid is a pinhole camera's
    far: float  # metres: objects beyond it are left out
    rectangles: Rectangles

    def directions(self) -> np.ndarray:
        """The direction of every ray: [H, W, 3]."""
        scale = np.ones(len(self.rows)) if self.scale is None else self.scale
        return scale[:, None, None] * self.columns + self.rows[:, None]


def camera_rays(intrinsics: np.ndarray, height: int, width: int) -> Rays:
    """Rays through the pixel centres of a camera (x right, y down, z forward), with z = 1."""
    (fx, _, cx), (_, fy, cy), _ = intrinsics
    x, y = (np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy
    zero = np.zeros_like

    def rectangles(corners: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
        # The part of an object before the plane z = NEAR: its corners there, and where its edges cross the plane.
        start, end = np.array(edges).T
        a, b = corners[:, start], corners[:, end]
        crosses = (a[..., 2] < NEAR) != (b[..., 2] < NEAR)
        share = np.where(crosses, (NEAR - a[..., 2]) / np.where(crosses, b[..., 2] - a[..., 2], 1), 0)
        points = np.concatenate([corners, a + share[..., None] * (b - a)], 1)
        seen = np.concatenate([corners[..., 2] >= NEAR, crosses], 1)
        z = np.where(seen, np.maximum(points[..., 2], NEAR * 0.999), 1)
        spans = []
        for k, focal, centre, size in ((1, fy, cy, height), (0, fx, cx, width)):
            pixel = points[..., k] / z * focal + centre
            low = np.where(seen, pixel, np.inf).min(1)
            high = np.where(seen, pixel, -np.inf).max(1)
            spans += [np.clip(np.ceil(low - 0.1), 0, size), np.clip(np.floor(high + 0.1) + 1, 0, size)]
        return np.stack(spans, -1).astype(int)

    rows, columns = np.stack([zero(y), y, zero(y)], -1), np.stack([x, zero(x), zero(x) + 1], -1)
    return Rays(rows, columns, None, FAR, rectangles)


def lidar_rays(elevation: np.ndarray, azimuth: np.ndarray) -> Rays:
    """Unit rays of a spinning LiDAR (x forward, y left, z up), a row for each beam.

    Args:
        elevation: [H], radians.
        azimuth: [W], radians, ascending evenly over a whole turn.
    """
    zero = np.zeros_like
    step = azimuth[1] - azimuth[0]

    def rectangles(corners: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
        angle = np.arctan2(corners[..., 1], corners[..., 0])
        offset = (angle - angle[:, :1] + np.pi) % (2 * np.pi) - np.pi
        low, high = angle[:, 0] + offset.min(1), angle[:, 0] + offset.max(1)
        # Objects that cross the seam at +-180 degrees, or surround the sensor, get all columns.
        whole = (low < -np.pi) | (high > np.pi) | (high - low > 0.9 * np.pi)
        first = np.where(whole, 0, np.clip(np.ceil((low - azimuth[0]) / step - 0.1), 0, len(azimuth)))
        past = np.where(whole, len(azimuth), np.clip(np.floor((high - azimuth[0]) / step + 0.1) + 1, 0, len(azimuth)))
        full = np.full_like(first, len(elevation))
        return np.stack([zero(first), full, first, past], -1).astype(int)

    rows = np.stack([zero(elevation), zero(elevation), np.sin(elevation)], -1)
    columns = np.stack([np.cos(azimuth), np.sin(azimuth), zero(azimuth)], -1)
    return Rays(rows, columns, np.cos(elevation), LIDAR_RANGE, rectangles)
