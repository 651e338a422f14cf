"""The objects that stand along a street: houses, cars, trees, poles.

Each function draws the sizes and colours of one object from `rng` and returns the shapes that it consists of. `middle`
and `spot` are points (x, y) on the ground in metres; headings are radians from east to north.
"""

import numpy as np

from datasets.synthetic.shapes import UP, Polygon, Quadric, axes, box, panel, rectangle
from datasets.synthetic.textures import SIZE

_SIGN_COLOURS = ((0.15, 0.3, 0.75), (0.8, 0.15, 0.1), (0.85, 0.7, 0.1), (0.85, 0.85, 0.85))


def house(rng: np.random.Generator, middle, heading: float, length: float, depth: float) -> list[Polygon]:
    """Walls with windows and a gable roof whose ridge runs along the street, or a flat roof."""
    storeys = int(rng.integers(1, 4))
    storey = rng.uniform(2.8, 3.3)
    walls = storeys * storey
    tile = (rng.uniform(5.0, 7.0), 2 * storey)
    offset = (rng.random(), 0.0)
    facade = f"facade_{rng.integers(4)}"
    paint = random_colour(rng, rng.choice([0.55, 0.8, 1.0]), 0.35, warm=0.12)
    polygons = box(middle, heading, length, depth, 0.0, walls, facade, "metal", paint, tile, offset)
    if rng.random() < 0.25:
        return polygons
    return polygons + gable_roof(rng, np.array([middle[0], middle[1], walls]), heading, length, depth, paint)


def gable_roof(
    rng: np.random.Generator, eaves: np.ndarray, heading: float, length: float, depth: float, paint: np.ndarray
) -> list[Polygon]:
    """Two slopes, two gables in the colour of the walls, and mostly a chimney; `eaves` [3] is the walls' upper end."""
    forward, left = axes(heading)
    walls = eaves[2]
    rise, overhang = rng.uniform(0.3, 0.55) * depth, 0.4
    tiles = random_colour(rng, rng.choice([0.35, 0.55, 0.75]), 0.2, warm=0.2)
    slope = np.hypot(depth / 2, rise)
    polygons = []
    for side in (1, -1):
        axis_u = -side * forward
        axis_v = (-side * left * depth / 2 + UP * rise) / slope
        low = eaves + side * left * depth / 2 - axis_u * (length / 2 + overhang) - axis_v * overhang
        width, height = length + 2 * overhang, slope + overhang
        polygons.append(rectangle(low, axis_u, axis_v, width, height, "roof", tiles, (4.0, 4.0)))
    gable = [(0, 0), (depth, 0), (depth / 2, rise)]
    for side in (1, -1):
        corner = eaves + side * (forward * length / 2 - left * depth / 2)
        polygons.append(panel(corner, side * left, UP, gable, "wall", paint * 0.9, (2.4, 2.4)))
    if rng.random() < 0.7:  # a chimney
        spot = eaves[:2] + forward[:2] * rng.uniform(-0.35, 0.35) * length + left[:2] * rng.uniform(-0.2, 0.2) * depth
        polygons += box(spot, heading, 0.7, 0.7, walls, walls + rise + 0.8, "wall", "metal", tiles * 0.9, (2.0, 2.0))
    return polygons


def car(rng: np.random.Generator, middle, heading: float) -> list[Polygon]:
    """A car or a van: body, cabin with slanted windscreens, and the dark ground below it."""
    paint = random_colour(rng, rng.choice([0.12, 0.35, 0.7, 1.0]), 0.25, warm=0.0, vivid=0.5)
    length, width = rng.uniform(3.8, 4.7), rng.uniform(1.68, 1.85)
    belt, height = rng.uniform(0.86, 0.98), rng.uniform(1.38, 1.6)  # of the lower edge of the windows, of the roof
    van = rng.random() < 0.2
    if van:
        height, belt = rng.uniform(1.9, 2.2), 1.1
    forward, left = axes(heading)
    base = np.array([middle[0], middle[1], 0.0])
    a, b = forward * length / 2, left * width / 2
    body = [
        rectangle(base + a - b, left, UP, width, belt, "car_front", paint),
        rectangle(base - a + b, -left, UP, width, belt, "car_rear", paint),
        rectangle(base + a + b, -forward, UP, length, belt, "car_side", paint),
        rectangle(base - a - b, forward, UP, length, belt, "car_side", paint),
        rectangle(base - a - b + UP * belt, forward, left, length, width, "metal", paint, (2.0, 2.0)),
    ]
    cabin = _cabin(rng, base + UP * belt, heading, length, width, height - belt, paint, van)
    shadow = base - a * 1.04 - b * 1.15 + UP * 0.012
    dark = np.full(3, 0.13)
    ground = rectangle(shadow, forward, left, length * 1.04, width * 1.15, "bark", dark, (3.0, 3.0))
    return [*body, *cabin, ground]


def _cabin(
    rng: np.random.Generator,
    foot: np.ndarray,
    heading: float,
    length: float,
    width: float,
    rise: float,
    paint: np.ndarray,
    van: bool,
) -> list[Polygon]:
    """The upper part of a car, `rise` metres high, above the point `foot` [3]: upright sides, slanted windscreens."""
    forward, left = axes(heading)
    # Ends of the cabin's foot along the car, and how far each windscreen leans inwards.
    front, rear = (0.42, -0.48) if van else (rng.uniform(0.2, 0.26), rng.uniform(-0.46, -0.36))
    lean_front, lean_rear = (0.5, 0.05) if van else (0.75, rng.uniform(0.3, 0.7))
    front, rear = front * length, rear * length
    inset = 0.06
    side = [(rear, 0), (front, 0), (front - lean_front, rise), (rear + lean_rear, rise)]
    right_origin, left_origin = foot - left * (width / 2 - inset), foot + left * (width / 2 - inset)
    mirrored = [(-u, v) for u, v in side[::-1]]
    polygons = [
        panel(right_origin, forward, UP, side, "car_glass", paint),
        panel(left_origin, -forward, UP, mirrored, "car_glass", paint),
    ]
    across = width - 2 * inset
    for sign, at, lean in ((1, front, lean_front), (-1, rear, lean_rear)):
        slope = np.hypot(lean, rise)
        axis_v = (-sign * forward * lean + UP * rise) / slope
        corner = foot + forward * at - sign * left * across / 2
        polygons.append(rectangle(corner, sign * left, axis_v, across, slope, "car_glass", paint))
    roof = foot + forward * (rear + lean_rear) - left * across / 2 + UP * rise
    roof_length = front - lean_front - rear - lean_rear
    polygons.append(rectangle(roof, forward, left, roof_length, across, "metal", paint, (2, 2)))
    return polygons


def tree(rng: np.random.Generator, spot) -> list[Quadric]:
    """A cylinder for the trunk and two to four ellipsoids of leaves."""
    height = rng.uniform(4.5, 9.0)
    trunk, spread = rng.uniform(0.35, 0.5) * height, rng.uniform(0.26, 0.4) * height
    brown = np.array([0.36, 0.29, 0.22]) * rng.uniform(0.7, 1.3)
    green = np.array([0.3, 0.42, 0.16]) * rng.uniform(0.6, 1.25) + np.array([rng.uniform(0, 0.15), 0, 0])
    root = np.array([spot[0], spot[1], 0.0])
    radius = rng.uniform(0.12, 0.24)
    parts = [Quadric(root, np.array([radius, radius, np.inf]), 0.0, trunk + 0.6, "bark", SIZE / 1.5, brown)]
    for _ in range(int(rng.integers(2, 5))):
        size = spread * rng.uniform(0.6, 1.0, 3)
        size[2] = min(size[2], (height - trunk) / 2)
        offset = rng.uniform(-0.5, 0.5, 3) * spread
        centre = root + np.array([offset[0], offset[1], max(trunk + size[2] * 0.8, trunk + spread + offset[2])])
        parts.append(Quadric(centre, size, -np.inf, np.inf, "leaves", SIZE / 4.0, green * rng.uniform(0.85, 1.1)))
    return parts


def pole(rng: np.random.Generator, spot, heading: float) -> tuple[list[Polygon], list[Quadric]]:
    """A lamp post, or a shorter post with a sign that faces the traffic."""
    root = np.array([spot[0], spot[1], 0.0])
    grey = random_colour(rng, 0.45, 0.2)
    if rng.random() < 0.5:
        height, radius = rng.uniform(5, 8), rng.uniform(0.07, 0.11)
        lamp = Quadric(root + UP * height, np.array([0.32, 0.32, 0.16]), -np.inf, np.inf, "metal", 64.0, grey * 1.4)
        return [], [Quadric(root, np.array([radius, radius, np.inf]), 0.0, height, "bark", SIZE / 1.5, grey), lamp]
    height = rng.uniform(2.4, 3.2)
    post = Quadric(root, np.array([0.05, 0.05, np.inf]), 0.0, height, "metal", SIZE / 1.5, grey)
    colour = np.array(_SIGN_COLOURS[rng.integers(4)])
    size = rng.uniform(0.5, 0.9)
    sign = box(spot, heading, 0.12, size, height - size, height, "metal", "metal", colour, (2.0, 2.0))
    return sign, [post]


def random_colour(
    rng: np.random.Generator, lightness: float, spread: float, warm: float = 0.0, vivid: float = 0.1
) -> np.ndarray:
    """A colour [3] near a grey of this lightness.

    Args:
        spread: the lightness varies by this share.
        warm: how far the colour is shifted from blue to red.
        vivid: how much red, green and blue vary independently.
    """
    tint = 1 + vivid * rng.uniform(-1, 1, 3) + warm * np.array([1.0, 0.1, -1.0])
    return np.clip(lightness * (1 + spread * rng.uniform(-1, 1)) * tint, 0.03, 1.15)
