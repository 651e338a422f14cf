"""The ground: where it shows the street and where grass, and where a point of it lies in the texture."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from datasets.synthetic.rip_map import Footprint
from datasets.synthetic.road import VERTEX_SPACING, Road
from datasets.synthetic.textures import ALL_NAMES, NAMES, SIZE

_GRASS_TILE = 18.0  # metres that the texture of the grass covers


class Ground:
    """The ground of one drive: a map from points (x, y) to (metres along the road, metres beside it).

    The map stores, for each square metre around the road, the vertex of the centre line that is nearest to it.
    """

    def __init__(self, road: Road, device: torch.device, side_roads: Sequence[Road] = ()):
        points = road.points
        self._reach, self._period = road.section.textured, road.section.period
        width = 2 * self._reach
        everywhere = np.concatenate([r.points for r in (road, *side_roads)])
        origin = np.floor(everywhere.min(0) - width)
        size = np.ceil(everywhere.max(0) + width - origin).astype(int)
        cells = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij"), -1) + origin
        cells = cells.reshape(-1, 2)
        away, vertex = cKDTree(points).query(cells, distance_upper_bound=self._reach + 1)
        vertex[vertex == len(points)] = -1  # no vertex is near
        first = len(points)  # vertex of a side road
        for side in side_roads:
            there, nearest = cKDTree(side.points).query(cells, distance_upper_bound=side.section.textured + 1)
            # A side road's asphalt ends at that of the road, and opens the road's kerb and pavement.
            opens = (there < side.section.kerb) & (away > road.section.asphalt)
            chosen = np.isfinite(there) & (opens | (vertex < 0))
            vertex[chosen] = first + nearest[chosen]
            first += len(side.points)
        self._left, self._low = origin.tolist()
        self._size_x, self._size_y = size.tolist()
        self._vertex = torch.from_numpy(vertex).to(torch.int32).to(device)  # [size_x * size_y]
        # Of each vertex: x, y, cosine and sine of the heading, curvature, metres along the road. The last column, for
        # points without a near vertex, lies 1000 km away.
        rows = np.concatenate([*map(_rows, [road, *side_roads]), [[1e6], [1e6], [1], [0], [0], [0]]], 1)
        self._sections = None
        if side_roads:  # of each vertex: reach and period of its road's texture, and the texture's number
            per_road = [(r.section.textured, r.section.period, r is road) for r in (road, *side_roads)]
            values = [
                (reach, period, ALL_NAMES.index("road" if own else "side_road")) for reach, period, own in per_road
            ]
            counts = [len(r.points) for r in (road, *side_roads)]
            table = np.repeat(np.array([*values, (1.0, 1.0, 0.0)]), [*counts, 1], axis=0).T
            self._sections = torch.from_numpy(table).to(torch.float32).to(device)  # [3, vertices + 1]
        self._road = torch.from_numpy(rows).to(torch.float32).to(device)  # [6, vertices + 1]

    def footprint(self, points: Footprint) -> tuple[Footprint, Tensor]:
        """Footprints in the texture, in texels, and its number (int32 [n]), of footprints in metres of the world."""
        x, y, x_x, x_y, y_x, y_y = points
        vertex = self._nearest_vertex(x, y)
        px, py, cos, sin, bend, s = self._road.index_select(1, vertex)
        reach, period, number = self._reach, self._period, NAMES.index("road")
        if self._sections is not None:
            reach, period, number = self._sections.index_select(1, vertex)
        dx, dy = x - px, y - py
        forward, across = cos * dx + sin * dy, cos * dy - sin * dx
        # Near the vertex the road is a circle of curvature `bend`; to second order:
        stretch = 1 / (1 - bend * across)
        along = s + forward * stretch
        across = across - 0.5 * bend * stretch * forward * forward
        street = across.abs() < reach
        a, c, g = SIZE / period * stretch, SIZE / (2 * reach), SIZE / _GRASS_TILE
        footprint = Footprint(
            u=torch.where(street, along * (SIZE / period), x * g),
            v=torch.where(street, across * c + SIZE / 2, y * g),
            u_x=torch.where(street, (cos * x_x + sin * y_x) * a, x_x * g),
            u_y=torch.where(street, (cos * x_y + sin * y_y) * a, x_y * g),
            v_x=torch.where(street, (cos * y_x - sin * x_x) * c, y_x * g),
            v_y=torch.where(street, (cos * y_y - sin * x_y) * c, y_y * g),
        )
        return footprint, torch.where(street, number, NAMES.index("grass")).to(torch.int32)

    def _nearest_vertex(self, x: Tensor, y: Tensor) -> Tensor:
        """Number of the road's vertex near each point, or of the vertex far away."""
        column, row = (x - self._left).floor_().to(torch.int32), (y - self._low).floor_().to(torch.int32)
        on_map = (column >= 0) & (column < self._size_x) & (row >= 0) & (row < self._size_y)
        cell = torch.where(on_map, column * self._size_y + row, 0)
        vertex = torch.where(on_map, self._vertex.index_select(0, cell), -1)
        return torch.where(vertex < 0, self._road.shape[1] - 1, vertex)


def _rows(road: Road) -> np.ndarray:
    """What `Ground` stores of each vertex of a road: [6, n]."""
    stations = np.arange(len(road.points)) * VERTEX_SPACING
    return np.stack([*road.points.T, np.cos(road.heading), np.sin(road.heading), road.curvature, stations])
