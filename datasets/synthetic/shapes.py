"""The two kinds of surface that objects consist of: convex planar polygons and upright quadrics.

With them a ray's first hit has a closed form. World frame: x east, y north, z up, metres.

Objects are built from single shapes (`Polygon`, `Quadric`), which `stack_polygons` and `stack_quadrics` turn into
arrays over all of them (`Polygons`, `Quadrics`).
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from datasets.synthetic.textures import ALL_NAMES, SIZE

UP = np.array([0.0, 0.0, 1.0])
_EDGE_MARGIN = 0.002  # metres by which edges lie outside, so that no ray slips through where two faces meet


@dataclass
class Polygons:
    """N convex polygons with at most four sides. A point of polygon n is origin + u * axis_u + v * axis_v (metres)."""

    origin: np.ndarray  # [N, 3]
    # Unit vectors, except that hills tilt them without turning them: then nearly so, and not quite orthogonal.
    axis_u: np.ndarray  # [N, 3]; axis_u x axis_v points outwards
    axis_v: np.ndarray  # [N, 3]
    edges: np.ndarray  # [N, 4, 3]: (k, a, b), where k + a u + b v is the distance to the edge in metres, inside >= 0
    corners: np.ndarray  # [N, 4, 3]
    texel_u: np.ndarray  # [N, 2]: texture column = texel_u[0] + texel_u[1] * u
    texel_v: np.ndarray  # [N, 2]: texture row = texel_v[0] + texel_v[1] * v
    texture: np.ndarray  # [N], index into textures.ALL_NAMES
    paint: np.ndarray  # [N, 3], red, green, blue

    def __getitem__(self, chosen: slice) -> "Polygons":
        return Polygons(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def moved(self, heading: float, x: float, y: float) -> "Polygons":
        """The same polygons, rotated about the z axis by `heading` radians and then shifted by (x, y) metres."""
        turn = np.array([[np.cos(heading), -np.sin(heading), 0], [np.sin(heading), np.cos(heading), 0], [0, 0, 1]])
        shift = np.array([x, y, 0.0])
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("axis_u", "axis_v"):
            rest[name] = rest[name] @ turn.T
        for name in ("origin", "corners"):
            rest[name] = rest[name] @ turn.T + shift
        return Polygons(**rest)


@dataclass
class Quadrics:
    """M upright ellipsoids, or cylinders (radius[2] = inf) between the heights bottom and top."""

    centre: np.ndarray  # [M, 3]
    radius: np.ndarray  # [M, 3] along x, y, z
    bottom: np.ndarray  # [M]
    top: np.ndarray  # [M]
    texture: np.ndarray  # [M], index into textures.ALL_NAMES
    texels: np.ndarray  # [M], texels per metre
    paint: np.ndarray  # [M, 3]


class Polygon(NamedTuple):
    """One polygon; see `Polygons`."""

    origin: np.ndarray
    axis_u: np.ndarray
    axis_v: np.ndarray
    outline: np.ndarray  # [3 or 4, 2] corners (u, v), counter-clockwise
    texel_u: tuple[float, float]
    texel_v: tuple[float, float]
    texture: str
    paint: np.ndarray


class Quadric(NamedTuple):
    """One quadric; see `Quadrics`."""

    centre: np.ndarray
    radius: np.ndarray
    bottom: float
    top: float
    texture: str
    texels: float
    paint: np.ndarray


def axes(heading: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [3] forward and left of a heading in radians."""
    sin, cos = np.sin(heading), np.cos(heading)
    return np.array([cos, sin, 0.0]), np.array([-sin, cos, 0.0])


def panel(origin, axis_u, axis_v, outline, texture, paint, tile=None, offset=(0.0, 0.0)) -> Polygon:
    """A polygon with the corners `outline` [3 or 4, 2] in (u, v).

    Args:
        tile: size of the texture in metres along u and v; None stretches the texture once over the outline.
        offset: shift of the texture along u and v, as a share of the texture.
    """
    outline = np.asarray(outline, float)
    if tile is None:
        low, high = outline.min(0), outline.max(0)
        texels = [(-SIZE * low[k] / (high[k] - low[k]), SIZE / (high[k] - low[k])) for k in range(2)]
    else:
        texels = [(SIZE * offset[k], SIZE / tile[k]) for k in range(2)]
    return Polygon(np.asarray(origin, float), axis_u, axis_v, outline, texels[0], texels[1], texture, np.asarray(paint))


def rectangle(origin, axis_u, axis_v, width, height, texture, paint, tile=None, offset=(0.0, 0.0)) -> Polygon:
    """A rectangle of `width` along axis_u and `height` along axis_v, with its first corner at `origin`."""
    outline = [(0, 0), (width, 0), (width, height), (0, height)]
    return panel(origin, axis_u, axis_v, outline, texture, paint, tile, offset)


def box(middle, heading, length, width, bottom, top, sides, roof, paint, tile=None, offset=(0.0, 0.0)) -> list[Polygon]:
    """Four walls and a lid around the ground point `middle` (x, y); `sides` and `roof` name textures."""
    forward, left = axes(heading)
    low = np.array([middle[0], middle[1], bottom])
    a, b, height = forward * length / 2, left * width / 2, top - bottom
    walls = [
        rectangle(low + a - b, left, UP, width, height, sides, paint, tile, offset),
        rectangle(low - a + b, -left, UP, width, height, sides, paint, tile, offset),
        rectangle(low + a + b, -forward, UP, length, height, sides, paint, tile, offset),
        rectangle(low - a - b, forward, UP, length, height, sides, paint, tile, offset),
    ]
    lid = rectangle(low - a - b + UP * height, forward, left, length, width, roof, paint, tile, offset)
    return [*walls, lid]


def stack_polygons(polygons: list[Polygon]) -> Polygons:
    """Arrays over all polygons, with the edges of each."""
    edges, corners = [], []
    for p in polygons:
        step = np.roll(p.outline, -1, 0) - p.outline
        inwards = np.stack([-step[:, 1], step[:, 0]], -1) / np.linalg.norm(step, axis=1, keepdims=True)
        lines = np.concatenate([_EDGE_MARGIN - (inwards * p.outline).sum(1, keepdims=True), inwards], 1)
        corner = p.origin + p.outline[:, :1] * p.axis_u + p.outline[:, 1:] * p.axis_v
        if len(lines) == 3:  # a triangle: a fourth edge that everything is inside of
            lines, corner = np.concatenate([lines, [[1.0, 0, 0]]]), np.concatenate([corner, corner[:1]])
        edges.append(lines)
        corners.append(corner)
    return Polygons(
        origin=np.stack([p.origin for p in polygons]),
        axis_u=np.stack([p.axis_u for p in polygons]),
        axis_v=np.stack([p.axis_v for p in polygons]),
        edges=np.stack(edges),
        corners=np.stack(corners),
        texel_u=np.array([p.texel_u for p in polygons]),
        texel_v=np.array([p.texel_v for p in polygons]),
        texture=np.array([ALL_NAMES.index(p.texture) for p in polygons]),
        paint=np.stack([p.paint for p in polygons]),
    )


def join_polygons(parts: list[Polygons]) -> Polygons:
    """The polygons of all parts, in their order."""
    return Polygons(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Polygons)))


def stack_quadrics(quadrics: list[Quadric]) -> Quadrics:
    """Arrays over all quadrics."""
    return Quadrics(
        centre=np.stack([q.centre for q in quadrics]),
        radius=np.stack([q.radius for q in quadrics]),
        bottom=np.array([q.bottom for q in quadrics]),
        top=np.array([q.top for q in quadrics]),
        texture=np.array([ALL_NAMES.index(q.texture) for q in quadrics]),
        texels=np.array([q.texels for q in quadrics]),
        paint=np.stack([q.paint for q in quadrics]),
    )
