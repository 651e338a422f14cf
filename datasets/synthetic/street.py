"""Where objects stand along a road: rows of houses, trees, parked cars and poles on both sides of it.

Each row walks along the road in steps of random length, draws an object, and places it if the ground is free. `side` is
1 for the left of the road and -1 for its right.
"""

import numpy as np
from scipy.spatial import cKDTree

from datasets.synthetic.objects import car, house, pole, random_colour, tree
from datasets.synthetic.road import KERB_END, PARKING_END, PAVEMENT_END, Road
from datasets.synthetic.shapes import Polygon, Polygons, Quadric, Quadrics, box, stack_polygons, stack_quadrics


class FreeGround:
    """The ground that is taken: circles that must not overlap, and the roads, on which nothing may stand."""

    def __init__(self, *roads: Road):
        self._road = cKDTree(np.concatenate([road.points for road in roads]))
        self._circles: list[tuple[float, float, float]] = []

    def distance_to_road(self, spot) -> float:
        """Metres from a point (x, y) to the centre line."""
        return self._road.query(spot)[0]

    def take(self, spot, radius: float, from_road: float) -> bool:
        """Take a circle if it is free and its centre is at least `from_road` metres from the centre line."""
        if self.distance_to_road(spot) < from_road:
            return False
        if self._circles:
            x, y, r = np.array(self._circles).T
            if (np.hypot(x - spot[0], y - spot[1]) < 0.85 * (r + radius)).any():
                return False
        self._circles.append((spot[0], spot[1], radius))
        return True


def place_objects(rng: np.random.Generator, road: Road, length: float) -> tuple[Polygons, Quadrics]:
    """All objects along the first `length` metres of the road."""
    polygons: list[Polygon] = []
    quadrics: list[Quadric] = []
    ground = FreeGround(road)
    for side in (1, -1):
        polygons += _houses(rng, road, ground, side, length)
        quadrics += _trees(rng, road, ground, side, length)
        polygons += _parked_cars(rng, road, side, length)
        signs, posts = _poles(rng, road, ground, side, length)
        polygons += signs
        quadrics += posts
        polygons += _background(rng, road, ground, side, length)
    return stack_polygons(polygons), stack_quadrics(quadrics)


def _houses(rng: np.random.Generator, road: Road, ground: FreeGround, side: int, length: float) -> list[Polygon]:
    """Houses that face the street, with a hedge, fence or wall before some of them."""
    polygons: list[Polygon] = []
    s = rng.uniform(0, 8)
    while s < length:
        width, depth = rng.uniform(7, 15), rng.uniform(7, 11)
        setback = PAVEMENT_END + rng.choice([0.6, 2.5, 5.0]) + rng.uniform(0, 1.5)
        spot, heading = road.at(s + width / 2, side * (setback + depth / 2))
        turned = float(heading) + (0.0 if rng.random() < 0.8 else rng.uniform(-0.3, 0.3))
        reach = np.hypot(width, depth) / 2
        if rng.random() < 0.88 and ground.take(spot, reach * 0.9, setback + depth / 2 - 0.3):
            polygons += house(rng, spot, turned, width, depth)
            if setback > PAVEMENT_END + 2 and rng.random() < 0.7:
                polygons += _enclosure(rng, road, ground, side, s + width / 2, width)
        s += width + rng.uniform(0.5, 7)
    return polygons


def _enclosure(
    rng: np.random.Generator, road: Road, ground: FreeGround, side: int, s: float, width: float
) -> list[Polygon]:
    """A hedge, fence or wall along the pavement, around `s` metres along the road."""
    middle, heading = road.at(s, side * (PAVEMENT_END + 0.4))
    texture = ("leaves", "fence", "wall")[rng.integers(3)]
    paint = np.array([0.28, 0.42, 0.17]) if texture == "leaves" else random_colour(rng, 0.6, 0.4, 0.1)
    height, thickness = rng.uniform(0.7, 1.6), 0.6 if texture == "leaves" else 0.15
    tile = (2.0, height) if texture == "fence" else (2.4, 2.4)
    if ground.distance_to_road(middle) <= PAVEMENT_END:
        return []
    return box(middle, float(heading), width, thickness, 0, height, texture, texture, paint, tile)


def _trees(rng: np.random.Generator, road: Road, ground: FreeGround, side: int, length: float) -> list[Quadric]:
    """Trees on the pavement and in the gardens."""
    quadrics: list[Quadric] = []
    s = rng.uniform(0, 10)
    while s < length:
        on_pavement = rng.random() < 0.4
        spot, _ = road.at(s, side * (PAVEMENT_END - 0.6 if on_pavement else rng.uniform(PAVEMENT_END + 1, 24)))
        if ground.take(spot, 0.8, PAVEMENT_END - 0.8):
            quadrics += tree(rng, spot)
        s += rng.uniform(5, 16)
    return quadrics


def _parked_cars(rng: np.random.Generator, road: Road, side: int, length: float) -> list[Polygon]:
    """Cars on the parking strip, which head as the traffic of their side does."""
    polygons: list[Polygon] = []
    s = rng.uniform(0, 10)
    while s < length:
        spot, heading = road.at(s, side * ((KERB_END + PARKING_END) / 2 + rng.uniform(-0.08, 0.08)))
        if rng.random() < 0.55:
            turned = float(heading) + (0 if side < 0 else np.pi) + rng.normal(0, 0.015)
            polygons += car(rng, spot, turned)
        s += rng.uniform(5.6, 9.0)
    return polygons


def _poles(
    rng: np.random.Generator, road: Road, ground: FreeGround, side: int, length: float
) -> tuple[list[Polygon], list[Quadric]]:
    """Lamps and signs at the edge of the pavement."""
    polygons: list[Polygon] = []
    quadrics: list[Quadric] = []
    s = rng.uniform(0, 15)
    while s < length:
        spot, heading = road.at(s, side * (PARKING_END + 0.25))
        if ground.take(spot, 0.3, PARKING_END):
            sign, posts = pole(rng, spot, float(heading) + (0 if side < 0 else np.pi))
            polygons += sign
            quadrics += posts
        s += rng.uniform(9, 28)
    return polygons, quadrics


def _background(rng: np.random.Generator, road: Road, ground: FreeGround, side: int, length: float) -> list[Polygon]:
    """A second row of houses, and woods behind it that close the view."""
    polygons: list[Polygon] = []
    s = 0.0
    while s < length:
        spot, heading = road.at(s, side * rng.uniform(32, 42))
        if rng.random() < 0.6 and ground.take(spot, 8.0, 28.0):
            turned = float(heading) + rng.choice([0.0, np.pi / 2])
            polygons += house(rng, spot, turned, rng.uniform(9, 14), 9.0)
        spot, heading = road.at(s, side * rng.uniform(55, 95))
        if ground.distance_to_road(spot) > 45:
            green = np.array([0.25, 0.34, 0.17]) * rng.uniform(0.7, 1.2)
            size = rng.uniform(18, 34)
            height = rng.uniform(7, 16)
            polygons += box(spot, float(heading), size, 6.0, 0, height, "leaves", "leaves", green, (8.0, 8.0))
        s += rng.uniform(14, 22)
    return polygons
