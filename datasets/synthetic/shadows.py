"""Cast shadows: a map of what the sun sees first, made once for all that stands still.

The map is a picture of the scene from the sun, with parallel rays. It holds, for each cell of a plane across the sun's
direction, how far towards the sun the nearest surface lies. A point is in the shade if a surface lies nearer to the sun
on its ray. The map is filled with points that are sampled from all surfaces, denser than its cells.

Moving vehicles cast no shadow into the map; each has its own dark ground (`vehicles.shade`).
"""

import numpy as np
import torch
from torch import Tensor

from datasets.synthetic.shapes import Polygons, Quadrics
from datasets.synthetic.textures import ALL_NAMES

_CELL = 0.3  # metres
_SPACING = 0.75  # of the sampled points, in cells
_LARGEST_SLACK = 2.5  # metres
_BIAS = 0.35  # metres towards the sun: nearer surfaces are taken for the point's own
_LARGEST = 35.0  # metres: larger things (hills) cast no shadow
_LEAVES_LIGHT = 0.3  # share of a crown that lets the light through
_NOTHING = -1e6


class Shadows:
    """The shadows of a scene's polygons and quadrics, for points within `reach` metres of the path."""

    def __init__(self, polygons: Polygons, quadrics: Quadrics, sun: np.ndarray, path: np.ndarray, reach: float, device):
        """`sun` [3]: unit vector; `path` [n, 2]: places (x, y) that the map must cover, metres."""
        side = np.array([-sun[1], sun[0], 0.0]) / np.hypot(sun[0], sun[1])
        self.axes = np.stack([side, np.cross(sun, side), sun])  # rows: across, up, towards the sun
        rng = np.random.default_rng(0)  # which leaves let the light through
        points = np.concatenate([_on_polygons(polygons, sun), _on_quadrics(quadrics, sun, rng)])
        a, b, d = self.axes @ points.T
        corners = np.concatenate([np.pad(path + shift, ((0, 0), (0, 1))) for shift in (-reach, reach)])
        low, high = (self.axes[:2] @ corners.T).min(1) - 1, (self.axes[:2] @ corners.T).max(1) + 1
        self._low = low
        self._columns, self._rows = (np.ceil((high - low) / _CELL).astype(int) + 1).tolist()
        column, row = ((a - low[0]) / _CELL).astype(int), ((b - low[1]) / _CELL).astype(int)
        inside = (a > low[0]) & (b > low[1]) & (column < self._columns) & (row < self._rows)
        nearest = np.full(self._rows * self._columns, _NOTHING, np.float32)
        np.maximum.at(nearest, (row * self._columns + column)[inside], d[inside].astype(np.float32))
        self._nearest = torch.from_numpy(nearest).to(device)

    def shade(self, across: Tensor, up: Tensor, towards: Tensor) -> Tensor:
        """The share of the sun's light that each point [n] misses: 0 to 1, with soft edges.

        Args: the points' coordinates along `axes`, metres.
        """
        x, y = (across - self._low[0]) / _CELL - 0.5, (up - self._low[1]) / _CELL - 0.5
        x, y = x.clamp_(0, self._columns - 1.001), y.clamp_(0, self._rows - 1.001)
        column, row = x.to(torch.int32), y.to(torch.int32)
        share_x, share_y = x - column, y - row
        cell = row * self._columns + column
        own = towards + _BIAS

        def hidden(shift: int) -> Tensor:
            return (self._nearest.index_select(0, (cell + shift).clamp_(max=len(self._nearest) - 1)) > own).float()

        upper = torch.lerp(hidden(0), hidden(1), share_x)
        lower = torch.lerp(hidden(self._columns), hidden(self._columns + 1), share_x)
        return torch.lerp(upper, lower, share_y)


def _on_polygons(polygons: Polygons, sun: np.ndarray) -> np.ndarray:
    """Points [n, 3] on a grid over each polygon, about `_SPACING` cells apart.

    A polygon at a slant to the sun crosses a cell over a range of distances. Its points are moved away from the sun by
    that range, else it would shade itself.
    """
    first, second, third, fourth = np.moveaxis(polygons.corners, 1, 0)
    along = np.maximum(np.linalg.norm(second - first, axis=1), np.linalg.norm(third - fourth, axis=1))
    across = np.maximum(np.linalg.norm(fourth - first, axis=1), np.linalg.norm(third - second, axis=1))
    step = _CELL * _SPACING
    columns, rows = (np.minimum(np.ceil(size / step), 400).astype(int) + 1 for size in (along, across))
    count = columns * rows
    owner = np.repeat(np.arange(len(count)), count)
    index = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    u = (index % columns[owner]) / (columns[owner] - 1)
    v = (index // columns[owner]) / (rows[owner] - 1)
    u, v = u[:, None].astype(np.float32), v[:, None].astype(np.float32)
    corner, right, up = (x.astype(np.float32) for x in (first, second - first, fourth - first))
    twist = (third - second - fourth + first).astype(np.float32)
    normal = np.cross(polygons.axis_u, polygons.axis_v)
    facing = np.maximum(normal @ sun, 1e-3)
    slack = np.minimum(1.5 * _CELL * np.sqrt(np.maximum(1 - facing**2, 0)) / facing, _LARGEST_SLACK)
    corner = corner - (slack[:, None] * sun).astype(np.float32)
    return corner[owner] + u * right[owner] + v * up[owner] + u * v * twist[owner]


def _on_quadrics(quadrics: Quadrics, sun: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points [n, 3] on the sunny half of each ellipsoid and along each cylinder; of leaves, with gaps."""
    step = _CELL * _SPACING
    pillar = np.isinf(quadrics.radius[:, 2])
    small = quadrics.radius[:, :2].max(1) < _LARGEST
    round_ones = np.flatnonzero(~pillar & small)
    radius, centre = quadrics.radius[round_ones], quadrics.centre[round_ones]
    # A disc across the sun, in the space where the ellipsoid is a unit ball, covers its sunny half evenly.
    facing = sun / radius
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    first = np.cross(facing, [0.0, 0.0, 1.0]) + 1e-9
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(facing, first)
    count = np.minimum(np.ceil(np.pi * radius.max(1) ** 2 / step**2), 4000).astype(int) + 4
    owner = np.repeat(np.arange(len(count)), count)
    index = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + 0.5
    distance, angle = np.sqrt(index / count[owner]), index * 2.399963  # a sunflower's seeds
    x, y, z = distance * np.cos(angle), distance * np.sin(angle), np.sqrt(np.maximum(1 - distance**2, 0))
    ball = x[:, None] * first[owner] + y[:, None] * second[owner] + z[:, None] * facing[owner]
    points = centre[owner] + ball * radius[owner]
    leafy = np.array([name.startswith("leaves") for name in ALL_NAMES])[quadrics.texture[round_ones]]
    points = points[~leafy[owner] | (rng.random(len(owner)) > _LEAVES_LIGHT)]
    pillars = np.flatnonzero(pillar)
    low, high = quadrics.bottom[pillars], quadrics.top[pillars]
    rungs = np.linspace(0, 1, 48)
    heights = low[:, None] + (high - low)[:, None] * rungs
    stems = np.empty((len(pillars), len(rungs), 3))
    stems[..., :2], stems[..., 2] = quadrics.centre[pillars, None, :2], heights
    return np.concatenate([points, stems.reshape(-1, 3)]).astype(np.float32)
