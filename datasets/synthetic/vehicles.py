"""The vehicles of varied worlds: cars, vans, lorries and buses, each a few convex polygons.

A vehicle is drawn from `rng`; its middle stands on the ground point `middle` (x, y) and it heads along `heading`
(radians from east to north).
"""

from typing import NamedTuple

import numpy as np

from datasets.synthetic.objects import random_colour
from datasets.synthetic.shapes import UP, Polygon, axes, panel, rectangle

_PAINTS = (0.05, 0.1, 0.25, 0.45, 0.7, 1.0)  # lightness: most cars are black, grey, silver or white
_HUES = (0.4, 0.4, 0.1, 0.1)
_SHADE = np.full(3, 0.1)


class _Shape(NamedTuple):
    """A kind of car: its share of all cars, and ranges in metres."""

    share: float
    length: tuple[float, float]
    width: tuple[float, float]
    belt: tuple[float, float]  # height of the lower edge of the windows
    height: tuple[float, float]
    rear_lean: tuple[float, float]  # how far the rear window leans forward
    boot: float  # length behind the rear window


_CARS = {
    "hatch": _Shape(0.34, (3.6, 4.3), (1.65, 1.8), (0.9, 1.0), (1.42, 1.55), (0.25, 0.6), 0.0),
    "saloon": _Shape(0.22, (4.3, 4.9), (1.72, 1.88), (0.9, 1.0), (1.38, 1.48), (0.5, 0.8), 0.75),
    "estate": _Shape(0.22, (4.3, 4.9), (1.72, 1.86), (0.92, 1.0), (1.42, 1.55), (0.15, 0.4), 0.0),
    "offroad": _Shape(0.12, (4.1, 4.8), (1.78, 1.95), (1.05, 1.2), (1.62, 1.85), (0.1, 0.35), 0.0),
    "van": _Shape(0.1, (4.4, 5.6), (1.8, 2.0), (1.1, 1.3), (1.85, 2.4), (0.03, 0.12), 0.0),
}


def vehicle(rng: np.random.Generator, middle, heading: float, large: float = 0.12) -> tuple[list[Polygon], float]:
    """A vehicle of any kind, and its length in metres; `large` is the share of lorries and buses."""
    if rng.random() < large:
        return bus(rng, middle, heading) if rng.random() < 0.25 else lorry(rng, middle, heading)
    return car(rng, middle, heading)


def _paint(rng: np.random.Generator) -> np.ndarray:
    paint = random_colour(rng, rng.choice(_PAINTS), 0.25, vivid=0.06)
    if rng.random() < 0.25:  # blue, red, green or yellow
        hue = np.array(((0.15, 0.3, 1.0), (1.0, 0.12, 0.1), (0.3, 0.8, 0.4), (1.0, 0.8, 0.2))[rng.choice(4, p=_HUES)])
        paint = np.clip(paint * hue * 1.5, 0.03, 1.0)
    return paint


def car(rng: np.random.Generator, middle, heading: float) -> tuple[list[Polygon], float]:
    """A hatchback, saloon, estate, off-roader or van: a body that is lower at its bonnet, a cabin, glass and lamps."""
    kind = str(rng.choice(list(_CARS), p=[shape.share for shape in _CARS.values()]))
    shape = _CARS[kind]
    length, width, belt, height, lean = (float(rng.uniform(*span)) for span in shape[1:6])
    bonnet = belt - rng.uniform(0.06, 0.18)
    paint = _paint(rng)
    forward, left = axes(heading)
    base = np.array([middle[0], middle[1], 0.0])
    a, b = forward * length / 2, left * width / 2
    side = [(0, 0), (length, 0), (length, bonnet), (0, belt)]
    mirrored = [(0, 0), (length, 0), (length, belt), (0, bonnet)]
    slope = np.hypot(length, belt - bonnet)
    lid = (forward * length - UP * (belt - bonnet)) / slope
    body = [
        rectangle(base + a - b, left, UP, width, bonnet, "car_front", paint),
        rectangle(base - a + b, -left, UP, width, belt, "car_rear", paint),
        panel(base + a + b, -forward, UP, mirrored, "car_side", paint),
        panel(base - a - b, forward, UP, side, "car_side", paint),
        rectangle(base - a - b + UP * belt, lid, left, slope, width, "metal", paint, (2.0, 2.0)),
    ]
    front = length * (0.36 if kind == "van" else rng.uniform(0.16, 0.24))
    rear = -length / 2 + shape.boot + 0.04
    foot = base + UP * min(bonnet, belt)
    cabin = _cabin(foot, heading, (rear, front), (lean, rng.uniform(0.55, 0.9)), width, height - foot[2], paint)
    return [*body, *cabin, shade(middle, heading, length, width)], length


def _cabin(
    foot: np.ndarray,
    heading: float,
    ends: tuple[float, float],
    leans: tuple[float, float],
    width: float,
    rise: float,
    paint: np.ndarray,
) -> list[Polygon]:
    """The glass part of a car above the point `foot`: between `ends` along it, leaning inwards by `leans` metres."""
    forward, left = axes(heading)
    inset, shoulder = 0.03, 0.16  # of the foot and of the roof, metres at each side
    low, high = width / 2 - inset, width / 2 - shoulder
    tilt = np.hypot(rise, low - high)
    side = [(ends[0], 0), (ends[1], 0), (ends[1] - leans[1], tilt), (ends[0] + leans[0], tilt)]
    mirrored = [(-u, v) for u, v in side[::-1]]
    right_up, left_up = ((UP * rise + sign * left * (low - high)) / tilt for sign in (1, -1))
    polygons = [
        panel(foot - left * low, forward, right_up, side, "car_glass", paint),
        panel(foot + left * low, -forward, left_up, mirrored, "car_glass", paint),
    ]
    for sign, at, lean in ((1, ends[1], leans[1]), (-1, ends[0], leans[0])):
        slope = np.hypot(lean, rise)
        axis_v = (-sign * forward * lean + UP * rise) / slope
        outline = [(-low, 0), (low, 0), (high, slope), (-high, slope)]
        polygons.append(panel(foot + forward * at, sign * left, axis_v, outline, "car_glass", paint))
    roof_length = ends[1] - leans[1] - ends[0] - leans[0]
    roof = foot + forward * (ends[0] + leans[0]) - left * high + UP * rise
    polygons.append(rectangle(roof, forward, left, roof_length, 2 * high, "metal", paint, (2, 2)))
    return polygons


def lorry(rng: np.random.Generator, middle, heading: float) -> tuple[list[Polygon], float]:
    """A cab and, on a chassis with wheels, a box, a tarpaulin, a tank or an open platform."""
    cargo, width = rng.uniform(4.0, 12.0), rng.uniform(2.2, 2.55)
    cab = rng.uniform(1.8, 2.3)
    length = cargo + cab + 0.5
    forward, _ = axes(heading)
    spot = np.array([middle[0], middle[1], 0.0])
    back = spot - forward * length / 2
    paint, cloth = _paint(rng), random_colour(rng, rng.choice([0.3, 0.6, 0.95]), 0.3, vivid=0.6)
    floor = rng.uniform(0.95, 1.3)
    polygons = _block(back + forward * cargo / 2, heading, cargo, width * 0.94, 0.0, floor, paint * 0.6, "chassis")
    style = rng.random()
    where = back + forward * cargo / 2
    if style < 0.25:
        radius = rng.uniform(0.95, 1.2)
        polygons += _tank(where, heading, cargo, radius, floor + radius - 0.15, cloth)
    else:
        height = rng.uniform(1.5, 2.0) if style < 0.45 else rng.uniform(2.6, 4.0)
        polygons += _block(where, heading, cargo, width, floor, height + 0.6, cloth, "lorry_side")
    ahead = back + forward * (cargo + 0.5 + cab / 2)
    polygons += _block(ahead, heading, cab, width, 0.0, 1.3, paint, "chassis")
    polygons += _block(ahead, heading, cab, width * 0.97, 1.3, rng.uniform(2.5, 3.3), paint, "car_glass")
    return [*polygons, shade(middle, heading, length, width)], length


def bus(rng: np.random.Generator, middle, heading: float) -> tuple[list[Polygon], float]:
    """A box with a band of windows."""
    length, width, height = rng.uniform(8, 13), 2.5, rng.uniform(2.8, 3.4)
    paint = random_colour(rng, rng.choice([0.4, 0.7, 1.0]), 0.25, vivid=0.6)
    polygons = _block(middle, heading, length, width, 0.0, height, paint, "bus_side")
    return [*polygons, shade(middle, heading, length, width)], length


def _block(
    middle, heading: float, length: float, width: float, bottom: float, top: float, paint: np.ndarray, sides: str
) -> list[Polygon]:
    """A box whose sides show `sides`; its ends show what a lorry or bus of such sides has there."""
    ends = {"lorry_side": "lorry_rear", "chassis": "lorry_rear", "bus_side": "bus_side"}.get(sides, sides)
    forward, left = axes(heading)
    low = np.array([middle[0], middle[1], bottom])
    a, b, height = forward * length / 2, left * width / 2, top - bottom
    tile = (4.8, height) if sides == "chassis" else None
    return [
        rectangle(low + a - b, left, UP, width, height, ends if sides != "lorry_side" else "metal", paint),
        rectangle(low - a + b, -left, UP, width, height, ends, paint),
        rectangle(low + a + b, -forward, UP, length, height, sides, paint, tile),
        rectangle(low - a - b, forward, UP, length, height, sides, paint, tile),
        rectangle(low - a - b + UP * height, forward, left, length, width, "metal", paint, (2.0, 2.0)),
    ]


def _tank(middle, heading: float, length: float, radius: float, axis: float, paint: np.ndarray) -> list[Polygon]:
    """A lying cylinder with eight sides, its axis `axis` metres above the ground."""
    forward, left = axes(heading)
    centre = np.array([middle[0], middle[1], axis])
    angles = np.pi / 8 + np.arange(8) * np.pi / 4
    corners = [np.array([np.cos(angle), np.sin(angle)]) * radius for angle in angles]  # (left, up)
    polygons = []
    for k in range(8):
        first, second = corners[k], corners[(k + 1) % 8]
        across = (left * (second - first)[0] + UP * (second - first)[1]) / np.hypot(*(second - first))
        start = centre + forward * length / 2 + left * first[0] + UP * first[1]
        side = float(np.hypot(*(second - first)))
        polygons.append(rectangle(start, -forward, across, length, side, "lorry_side", paint))
    for sign in (1, -1):  # an end: three quadrilaterals in one plane
        outline = [(sign * x, y) for x, y in corners][:: int(sign)]
        origin = centre + sign * forward * length / 2
        for quad in ((0, 1, 2, 3), (3, 4, 7, 0), (4, 5, 6, 7)):
            polygons.append(panel(origin, sign * left, UP, [outline[q] for q in quad], "metal", paint, (3.0, 3.0)))
    return polygons


def shade(middle, heading: float, length: float, width: float) -> Polygon:
    """The dark ground under a vehicle."""
    forward, left = axes(heading)
    corner = np.array([middle[0], middle[1], 0.012]) - forward * length * 0.52 - left * width * 0.58
    return rectangle(corner, forward, left, length * 1.04, width * 1.16, "bark", _SHADE, (3.0, 3.0))
