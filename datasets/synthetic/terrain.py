"""Hills of a varied world: ground whose height changes along one direction, in straight strips.

A strip is a plane, so the first hit on it has the closed form of a polygon, and the depth stays exact.
"""

from typing import NamedTuple

import numpy as np

from datasets.synthetic.shapes import UP, Polygon, Polygons, Quadric, rectangle

_STRIP = 12.0  # metres along the direction
_HALF_WIDTH = 600.0  # metres to either side
_BEYOND = 320.0  # metres before the road's beginning and after its end
_WHEELBASE = 2.6  # metres over which a car's wheels average the slope


class Terrain(NamedTuple):
    """The height of the ground: linear in direction . (x, y) between knots, constant beyond them."""

    direction: np.ndarray  # [2], unit vector
    knots: np.ndarray  # [n], metres along the direction, ascending
    heights: np.ndarray  # [n], metres

    def height(self, places: np.ndarray) -> np.ndarray:
        """Heights [...] of the ground at places [..., 2]."""
        return np.interp(np.asarray(places) @ self.direction, self.knots, self.heights)

    def slope(self, places: np.ndarray) -> np.ndarray:
        """Gradient of the height [..., 2] at places [..., 2], as the wheels of a car there feel it."""
        ahead, behind = (self.height(places + side * _WHEELBASE / 2 * self.direction) for side in (1, -1))
        return ((ahead - behind) / _WHEELBASE)[..., None] * self.direction

    @property
    def lowest(self) -> float:
        """Metres."""
        return float(self.heights.min())

    def strips(self) -> list[Polygon]:
        """The ground's strips, without texture of their own: the ground's is theirs."""
        forward = np.array([*self.direction, 0.0])
        left = np.cross(UP, forward)
        polygons = []
        for k in range(len(self.knots) - 1):
            origin = forward * self.knots[k] + UP * self.heights[k] - left * _HALF_WIDTH
            run = forward * (self.knots[k + 1] - self.knots[k]) + UP * (self.heights[k + 1] - self.heights[k])
            length = float(np.linalg.norm(run))
            polygons.append(
                rectangle(origin, run / length, left, length, 2 * _HALF_WIDTH, "grass", np.zeros(3), (18.0, 18.0))
            )
        return polygons

    def lift_polygon(self, polygon: Polygon, spot: np.ndarray, follow: bool) -> Polygon:
        """A polygon of an object that stands at `spot` [2], drawn for level ground.

        Args:
            follow: tilt it with the ground, as a car or a guard rail; else it stays upright, as a house.
        """
        slope = self.slope(spot) if follow else np.zeros(2)
        rise = float(self.height(spot)) + float((polygon.origin[:2] - spot) @ slope)
        axis_u, axis_v = (axis + UP * float(axis[:2] @ slope) for axis in (polygon.axis_u, polygon.axis_v))
        return polygon._replace(origin=polygon.origin + UP * rise, axis_u=axis_u, axis_v=axis_v)

    def lift_quadric(self, quadric: Quadric) -> Quadric:
        """A quadric that was drawn for level ground; it stays upright."""
        rise = float(self.height(quadric.centre[:2]))
        return quadric._replace(centre=quadric.centre + UP * rise, bottom=quadric.bottom + rise, top=quadric.top + rise)

    def lift_mover(self, polygons: Polygons, position: np.ndarray) -> Polygons:
        """A vehicle's polygons at `position` [2], moved there on level ground: lifted and tilted, in place."""
        slope, height = self.slope(position), float(self.height(position))
        for points in (polygons.origin, polygons.corners):
            points[..., 2] += height + (points[..., :2] - position) @ slope
        for axis in (polygons.axis_u, polygons.axis_v):
            axis[:, 2] += axis[:, :2] @ slope
        return polygons

    def lift_poses(self, poses: np.ndarray) -> np.ndarray:
        """Camera poses [n, 4, 4] over level ground, lifted and tilted with the car."""
        places = poses[:, :2, 3]
        slope, height = self.slope(places), self.height(places)
        normal = np.concatenate([-slope, np.ones((len(slope), 1))], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        tilt = np.stack([_from_up_to(n) for n in normal])
        lifted = poses.copy()
        lifted[:, :3, :3] = tilt @ poses[:, :3, :3]
        lifted[:, :3, 3] = normal * poses[:, 2:3, 3]
        lifted[:, :2, 3] += places
        lifted[:, 2, 3] += height
        return lifted


def make_terrain(rng: np.random.Generator, points: np.ndarray, steepest: float) -> Terrain:
    """Hills and dips along the road's main direction.

    Args:
        points: the road's centre line [n, 2].
        steepest: largest slope, metres per metre.
    """
    run = points[-1] - points[0]
    direction = run / np.linalg.norm(run)
    along = points @ direction
    knots = np.arange(along.min() - _BEYOND, along.max() + _BEYOND + _STRIP, _STRIP)
    slope = np.zeros_like(knots)
    for _ in range(4):
        wave = rng.uniform(120, 500)
        slope += rng.uniform(0.2, 1) * np.sin(2 * np.pi * (knots / wave + rng.random()))
    slope *= steepest / np.abs(slope).max()
    heights = np.concatenate([[0.0], np.cumsum(slope[:-1] * _STRIP)])
    return Terrain(direction, knots, heights)


def _from_up_to(normal: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that takes the z axis to a unit vector above the horizon."""
    x, y, z = normal
    k = 1 / (1 + z)
    return np.array([[1 - x * x * k, -x * y * k, x], [-x * y * k, 1 - y * y * k, y], [-x, -y, z]])
