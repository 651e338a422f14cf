"""A street of the synthetic world, built from a seed: its road, what stands along it, and a car's drive through it.

World frame: x east, y north, z up, metres; the ground is the plane z = 0. Everything that stands on it is a convex
planar polygon or an upright quadric (ellipsoid, cylinder), so that a ray's first hit has a closed form.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from datasets.synthetic.textures import KERB, NAMES, PARKING, PAVEMENT, SIZE

FRAME_TIME = 0.1  # seconds between two frames
CAMERA_HEIGHT = 1.65  # metres above the ground
CAMERA_AHEAD = 1.2  # metres from the rear axle, which follows the lane, forward to the camera
BASELINE = 0.54  # metres from the left camera (image_02) to the right one (image_03)

LANE = 1.9  # the lanes' middle lies this far from the road's
BEHIND, AHEAD = 40.0, 200.0  # metres of street before the drive's start and after its end
STEP = 0.5  # metres between two vertices of the road's centre line
TIGHTEST = 20.0  # the smallest radius of a bend, metres
SIDEWAYS = 2.6  # the largest lateral acceleration, m/s^2


class Road(NamedTuple):
    """The centre line: a vertex each STEP metres."""

    points: np.ndarray  # [n, 2]
    heading: np.ndarray  # [n], radians from east to north
    curvature: np.ndarray  # [n], 1/m, positive to the left

    def at(self, s: np.ndarray | float, left: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Points [..., 2] and headings [...] at s metres along the line, `left` metres beside it."""
        s = np.asarray(s, float)
        stations = np.arange(len(self.heading)) * STEP
        point = np.stack([np.interp(s, stations, self.points[:, k]) for k in range(2)], -1)
        heading = np.interp(s, stations, self.heading)
        return point + np.asarray(left)[..., None] * np.stack([-np.sin(heading), np.cos(heading)], -1), heading


@dataclass
class Polygons:
    """N convex polygons with at most four sides. A point of polygon n is origin + u * axis_u + v * axis_v (metres)."""

    origin: np.ndarray  # [N, 3]
    axis_u: np.ndarray  # [N, 3], unit; axis_u x axis_v points outwards
    axis_v: np.ndarray  # [N, 3], unit
    edges: np.ndarray  # [N, 4, 3]: (k, a, b) with k + a u + b v >= 0 inside, in metres from the edge
    corners: np.ndarray  # [N, 4, 3]
    texel_u: np.ndarray  # [N, 2]: texture column = texel_u[0] + texel_u[1] * u
    texel_v: np.ndarray  # [N, 2]
    texture: np.ndarray  # [N], index into textures.NAMES
    paint: np.ndarray  # [N, 3]

    def moved(self, heading: float, x: float, y: float) -> "Polygons":
        """The same polygons turned about the z axis, then shifted on the ground."""
        turn = np.array([[np.cos(heading), -np.sin(heading), 0], [np.sin(heading), np.cos(heading), 0], [0, 0, 1]])
        shift = np.array([x, y, 0.0])
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("axis_u", "axis_v"):
            rest[name] = rest[name] @ turn.T
        for name in ("origin", "corners"):
            rest[name] = rest[name] @ turn.T + shift
        return Polygons(**rest)

    def __add__(self, other: "Polygons") -> "Polygons":
        return Polygons(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass
class Quadrics:
    """M upright ellipsoids, or cylinders (radius[2] = inf) between the heights bottom and top."""

    centre: np.ndarray  # [M, 3]
    radius: np.ndarray  # [M, 3] along x, y, z
    bottom: np.ndarray  # [M]
    top: np.ndarray  # [M]
    texture: np.ndarray  # [M]
    texels: np.ndarray  # [M], texels a metre
    paint: np.ndarray  # [M, 3]


class Mover(NamedTuple):
    """Another car that drives along the road: where its middle is at every frame."""

    polygons: Polygons  # in the car's own frame: x forward, the origin on the ground below its middle
    position: np.ndarray  # [frames, 2]
    heading: np.ndarray  # [frames]


@dataclass
class Scene:
    """One drive's world and the path of its left camera."""

    road: Road
    polygons: Polygons
    quadrics: Quadrics
    movers: list[Mover]
    world_from_camera: np.ndarray  # [frames, 4, 4], the left camera: x right, y down, z forward
    sun: np.ndarray  # [3], unit, towards the sun
    sunlight: float  # its share of the light; the rest is ambient
    sky: np.ndarray  # [3], the sky's blue
    haze: np.ndarray  # [3], what far things fade to
    haze_distance: float  # metres after which 1 - 1/e of the colour is haze
    light: np.ndarray  # [frames], brightness of the whole scene (a cloud before the sun)
    exposure: np.ndarray  # [frames], the camera's gain

    def polygons_at(self, frame: int) -> Polygons:
        """All polygons at a frame's time, moving cars in their places."""
        polygons = self.polygons
        for mover in self.movers:
            polygons = polygons + mover.polygons.moved(mover.heading[frame], *mover.position[frame])
        return polygons


def make_scene(
    rng: np.random.Generator,
    frames: int,
    *,
    moving_cars: bool = False,
    halts: bool = True,
    exposure_changes: bool = False,
    jitter: float = 0.25,
) -> Scene:
    """A street and a drive of so many frames through it.

    Args:
        rng: everything that differs between drives comes from it.
        moving_cars: other cars drive in both lanes.
        halts: the car stops for one to two seconds: in drives of 40 to 200 frames mostly once or never, in longer
            ones every ten to twenty seconds.
        exposure_changes: the camera's gain jumps between frames.
        jitter: standard deviation of pitch and roll, degrees.
    """
    road_rng, drive_rng, things_rng, light_rng, car_rng = rng.spawn(5)
    travelled = _speeds_limit(frames)
    road = _make_road(road_rng, BEHIND + travelled + AHEAD)
    s = BEHIND + _drive_along(drive_rng, road, frames, halts)
    world_from_camera = _camera_poses(drive_rng, road, s, jitter)

    elevation, azimuth = np.radians(light_rng.uniform(25, 60)), light_rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    warmth = light_rng.uniform(-0.03, 0.03)
    polygons, quadrics = _furnish(things_rng, road, s[-1] + AHEAD)
    # The light stands still with the car, so that static frames show the same.
    time = (np.cumsum(np.diff(s, prepend=-1.0) > 0) - 1) * FRAME_TIME
    light = light_rng.uniform(0.8, 1.15) * (1 + 0.12 * _wander(light_rng, time, 0.02, 0.12))
    gain = np.exp(0.08 * light_rng.standard_normal(frames))  # drawn in any case: what follows must not depend on it
    return Scene(
        road=road,
        polygons=polygons,
        quadrics=quadrics,
        movers=_moving_cars(car_rng, road, s) if moving_cars else [],
        world_from_camera=world_from_camera,
        sun=sun,
        sunlight=light_rng.uniform(0.3, 0.6),
        sky=np.array([0.38, 0.56, 0.85]) * light_rng.uniform(0.85, 1.05) + np.array([warmth, 0, -warmth]),
        haze=np.array([0.74, 0.78, 0.83]) * light_rng.uniform(0.9, 1.05) + np.array([warmth, 0, -warmth]),
        haze_distance=light_rng.uniform(140, 320),
        light=light,
        exposure=gain if exposure_changes else np.ones(frames),
    )


# ----------------------------------------------------------------------------------------------- road and drive


def _speeds_limit(frames: int) -> float:
    return 1.5 * frames


def _make_road(rng: np.random.Generator, length: float) -> Road:
    """A winding road: bends of random strength, joined by short straights; it never turns back across itself."""
    knots_s, knots_heading = [0.0], [0.0]
    while knots_s[-1] < length:
        target = rng.uniform(-0.95, 0.95)
        bend = abs(target - knots_heading[-1]) * TIGHTEST * np.pi / 2 * rng.uniform(1.0, 2.0)
        knots_s += [knots_s[-1] + rng.uniform(3, 25)]
        knots_heading += [knots_heading[-1]]
        knots_s += [knots_s[-1] + max(bend, 5.0)]
        knots_heading += [target]
    s = np.arange(0, length + STEP, STEP)
    k = np.clip(np.searchsorted(knots_s, s, side="right") - 1, 0, len(knots_s) - 2)
    start, end = np.take(knots_s, k), np.take(knots_s, k + 1)
    share = 0.5 - 0.5 * np.cos(np.pi * (s - start) / (end - start))  # the curvature has no jump
    heading = np.take(knots_heading, k) * (1 - share) + np.take(knots_heading, k + 1) * share
    middle = (heading[1:] + heading[:-1]) / 2
    points = np.cumsum(np.stack([np.cos(middle), np.sin(middle)], -1) * STEP, 0)
    heading += (turn := rng.uniform(0, 2 * np.pi))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.concatenate([np.zeros((1, 2)), points]) @ rotation.T
    return Road(points, heading, np.gradient(heading, STEP))


def _drive_along(rng: np.random.Generator, road: Road, frames: int, halts: bool) -> np.ndarray:
    """Metres along the road after the drive's first frame, [frames]: 0.3 to 1.5 m a frame, slower in bends."""
    bend = np.abs(road.curvature)
    calm = np.sqrt(SIDEWAYS / np.maximum(bend, 1e-3)) * FRAME_TIME  # the fastest step in each place, m a frame
    wish = rng.uniform(0.6, 1.45)
    halt_at = frames
    if halts and frames >= 40:
        soon = rng.random() < 0.6
        halt_at = int(rng.uniform(0.25, 0.75) * min(frames, 200)) if soon else 200
    stand_for = int(rng.integers(10, 20))
    speed, s, stood = min(wish, 1.0), 0.0, 0
    travelled = []
    for frame in range(frames):
        travelled.append(s)
        if rng.random() < 0.04:  # traffic
            wish = rng.uniform(0.4, 1.5)
        here = int((BEHIND + s) / STEP)
        ahead = calm[here : here + int(12 / STEP)].min()
        target = float(np.clip(min(wish, ahead), 0.3, 1.5))
        if frame >= halt_at:
            target = 0.0
            stood += speed == 0.0
            if stood == stand_for:
                halt_at, stood, stand_for = frame + int(rng.uniform(100, 200)), 0, int(rng.integers(10, 20))
        # 3.5 m/s^2 of brakes, 2 m/s^2 of engine
        speed = float(np.clip(target, speed - 3.5 * FRAME_TIME**2, speed + 2.0 * FRAME_TIME**2))
        s += speed
    return np.array(travelled)


def _camera_poses(rng: np.random.Generator, road: Road, s: np.ndarray, jitter: float) -> np.ndarray:
    """world_from_camera [n, 4, 4]: the rear axle follows the lane, the body pitches, rolls and heaves."""
    fine = np.arange(0, road.points.shape[0] * STEP, 0.25)
    left = -LANE + 0.25 * _wander(rng, fine, 0.004, 0.02)
    point, _ = road.at(fine, left)
    point = _smooth(point)
    heading = np.unwrap(np.arctan2(*np.gradient(point, axis=0).T[::-1]))
    axle = np.stack([np.interp(s, fine, point[:, k]) for k in range(2)], -1)
    heading = np.interp(s, fine, heading)

    time = np.arange(len(s)) * FRAME_TIME
    # Springs swing at 0.5 to 1.4 Hz, and only while the car drives.
    steps = np.diff(s, prepend=s[0], append=s[-1])
    steps[0], steps[-1] = steps[1], steps[-2]
    shaking = np.minimum(np.minimum(steps[:-1], steps[1:]) / 0.5, 1.0)
    pitch, roll = (np.radians(jitter) * shaking * _wander(rng, time, 0.5, 1.4) for _ in range(2))
    heave = 0.012 * shaking * _wander(rng, time, 0.5, 1.4)

    sin, cos, zero = np.sin(heading), np.cos(heading), np.zeros_like(heading)
    right, down, forward = (sin, -cos, zero), (zero, zero, zero - 1), (cos, sin, zero)
    rotation = np.stack([np.stack(axis, -1) for axis in (right, down, forward)], -1)
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    poses[:, :3, :3] = rotation @ _about_x(pitch) @ _about_z(roll)
    poses[:, :2, 3] = axle + CAMERA_AHEAD * np.stack([cos, sin], -1)
    poses[:, 2, 3] = CAMERA_HEIGHT + heave + CAMERA_AHEAD * np.sin(pitch)
    return poses


def _wander(rng: np.random.Generator, x: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """A smooth random function of x with deviation 1: five sines of frequencies between the two."""
    frequency, phase = rng.uniform(lowest, highest, 5), rng.uniform(0, 2 * np.pi, 5)
    return np.sin(2 * np.pi * frequency * x[:, None] + phase).sum(-1) / np.sqrt(2.5)


def _smooth(points: np.ndarray, width: int = 9) -> np.ndarray:
    """Moving average along a line whose ends are extended straight on."""
    pad = width // 2
    first = points[0] - (points[1] - points[0]) * np.arange(pad, 0, -1)[:, None]
    last = points[-1] + (points[-1] - points[-2]) * np.arange(1, pad + 1)[:, None]
    padded = np.concatenate([first, points, last])
    return np.stack([np.convolve(padded[:, k], np.full(width, 1 / width), "valid") for k in range(2)], -1)


def _about_x(angle: np.ndarray) -> np.ndarray:
    sin, cos, zero, one = np.sin(angle), np.cos(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).reshape(-1, 3, 3)


def _about_z(angle: np.ndarray) -> np.ndarray:
    sin, cos, zero, one = np.sin(angle), np.cos(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)


# ------------------------------------------------------------------------------------------- things along the road


class _Polygon(NamedTuple):
    origin: np.ndarray
    axis_u: np.ndarray
    axis_v: np.ndarray
    outline: np.ndarray  # [3 or 4, 2] corners (u, v), counter-clockwise
    texel_u: tuple[float, float]
    texel_v: tuple[float, float]
    texture: str
    paint: np.ndarray


class _Quadric(NamedTuple):
    centre: np.ndarray
    radius: np.ndarray
    bottom: float
    top: float
    texture: str
    texels: float
    paint: np.ndarray


UP = np.array([0.0, 0.0, 1.0])


def _axes(heading: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors forward and left of a heading."""
    sin, cos = np.sin(heading), np.cos(heading)
    return np.array([cos, sin, 0.0]), np.array([-sin, cos, 0.0])


def _panel(origin, axis_u, axis_v, outline, texture, paint, tile=None, offset=(0.0, 0.0)) -> _Polygon:
    """One polygon. `tile`: the texture's size in metres along u and v; None stretches it once over the outline."""
    outline = np.asarray(outline, float)
    if tile is None:
        low, high = outline.min(0), outline.max(0)
        texels = [(-SIZE * low[k] / (high[k] - low[k]), SIZE / (high[k] - low[k])) for k in range(2)]
    else:
        texels = [(SIZE * offset[k], SIZE / tile[k]) for k in range(2)]
    return _Polygon(
        np.asarray(origin, float), axis_u, axis_v, outline, texels[0], texels[1], texture, np.asarray(paint)
    )


def _rectangle(origin, axis_u, axis_v, width, height, texture, paint, tile=None, offset=(0.0, 0.0)) -> _Polygon:
    outline = [(0, 0), (width, 0), (width, height), (0, height)]
    return _panel(origin, axis_u, axis_v, outline, texture, paint, tile, offset)


def _box(
    middle, heading, length, width, bottom, top, sides, roof, paint, tile=None, offset=(0.0, 0.0)
) -> list[_Polygon]:
    """Four walls and a lid on the ground point `middle`; `sides` and `roof` name textures."""
    forward, left = _axes(heading)
    low = np.array([middle[0], middle[1], bottom])
    a, b, height = forward * length / 2, left * width / 2, top - bottom
    walls = [
        _rectangle(low + a - b, left, UP, width, height, sides, paint, tile, offset),
        _rectangle(low - a + b, -left, UP, width, height, sides, paint, tile, offset),
        _rectangle(low + a + b, -forward, UP, length, height, sides, paint, tile, offset),
        _rectangle(low - a - b, forward, UP, length, height, sides, paint, tile, offset),
    ]
    lid = _rectangle(low - a - b + UP * height, forward, left, length, width, roof, paint, tile, offset)
    return [*walls, lid]


def _house(rng: np.random.Generator, middle, heading: float, length: float, depth: float) -> list[_Polygon]:
    """Walls with windows and a gable roof whose ridge runs along the street (or a flat roof)."""
    storeys = int(rng.integers(1, 4))
    storey = rng.uniform(2.8, 3.3)
    walls = storeys * storey
    tile = (rng.uniform(5.0, 7.0), 2 * storey)
    offset = (rng.random(), 0.0)
    facade = f"facade_{rng.integers(4)}"
    paint = _colour(rng, rng.choice([0.55, 0.8, 1.0]), 0.35, warm=0.12)
    polygons = _box(middle, heading, length, depth, 0.0, walls, facade, "metal", paint, tile, offset)
    if rng.random() < 0.25:
        return polygons
    forward, left = _axes(heading)
    rise, over = rng.uniform(0.3, 0.55) * depth, 0.4
    tiles = _colour(rng, rng.choice([0.35, 0.55, 0.75]), 0.2, warm=0.2)
    eaves = np.array([middle[0], middle[1], walls])
    slope = np.hypot(depth / 2, rise)
    for side in (1, -1):
        axis_u = -side * forward
        axis_v = (-side * left * depth / 2 + UP * rise) / slope
        low = eaves + side * left * depth / 2 - axis_u * (length / 2 + over) - axis_v * over
        polygons.append(_rectangle(low, axis_u, axis_v, length + 2 * over, slope + over, "roof", tiles, (4.0, 4.0)))
    gable = [(0, 0), (depth, 0), (depth / 2, rise)]
    for side in (1, -1):
        corner = eaves + side * (forward * length / 2 - left * depth / 2)
        polygons.append(_panel(corner, side * left, UP, gable, "wall", paint * 0.9, (2.4, 2.4)))
    if rng.random() < 0.7:
        spot = eaves[:2] + forward[:2] * rng.uniform(-0.35, 0.35) * length + left[:2] * rng.uniform(-0.2, 0.2) * depth
        polygons += _box(spot, heading, 0.7, 0.7, walls, walls + rise + 0.8, "wall", "metal", tiles * 0.9, (2.0, 2.0))
    return polygons


def _car(rng: np.random.Generator, middle, heading: float) -> list[_Polygon]:
    """Body, cabin with slanted screens, and the dark ground below it."""
    paint = _colour(rng, rng.choice([0.12, 0.35, 0.7, 1.0]), 0.25, warm=0.0, vivid=0.5)
    length, width = rng.uniform(3.8, 4.7), rng.uniform(1.68, 1.85)
    belt, height = rng.uniform(0.86, 0.98), rng.uniform(1.38, 1.6)
    van = rng.random() < 0.2
    if van:
        height, belt = rng.uniform(1.9, 2.2), 1.1
    forward, left = _axes(heading)
    base = np.array([middle[0], middle[1], 0.0])
    a, b = forward * length / 2, left * width / 2
    polygons = [
        _rectangle(base + a - b, left, UP, width, belt, "car_front", paint),
        _rectangle(base - a + b, -left, UP, width, belt, "car_rear", paint),
        _rectangle(base + a + b, -forward, UP, length, belt, "car_side", paint),
        _rectangle(base - a - b, forward, UP, length, belt, "car_side", paint),
        _rectangle(base - a - b + UP * belt, forward, left, length, width, "metal", paint, (2.0, 2.0)),
    ]
    # The cabin: foot and roof along the car (from its middle), upright sides.
    front, rear = (0.42, -0.48) if van else (rng.uniform(0.2, 0.26), rng.uniform(-0.46, -0.36))
    lean_front, lean_rear = (0.5, 0.05) if van else (0.75, rng.uniform(0.3, 0.7))
    front, rear = front * length, rear * length
    rise = height - belt
    foot = base + UP * belt
    inset = 0.06
    side = [(rear, 0), (front, 0), (front - lean_front, rise), (rear + lean_rear, rise)]
    right_origin, left_origin = foot - left * (width / 2 - inset), foot + left * (width / 2 - inset)
    polygons.append(_panel(right_origin, forward, UP, side, "car_glass", paint))
    mirrored = [(-u, v) for u, v in side[::-1]]
    polygons.append(_panel(left_origin, -forward, UP, mirrored, "car_glass", paint))
    across = width - 2 * inset
    for sign, at, lean in ((1, front, lean_front), (-1, rear, lean_rear)):
        slope = np.hypot(lean, rise)
        axis_v = (-sign * forward * lean + UP * rise) / slope
        corner = foot + forward * at - sign * left * across / 2
        polygons.append(_rectangle(corner, sign * left, axis_v, across, slope, "car_glass", paint))
    roof = foot + forward * (rear + lean_rear) - left * across / 2 + UP * rise
    polygons.append(
        _rectangle(roof, forward, left, front - lean_front - rear - lean_rear, across, "metal", paint, (2, 2))
    )
    shadow = base - a * 1.04 - b * 1.15 + UP * 0.012
    dark = np.full(3, 0.13)
    polygons.append(_rectangle(shadow, forward, left, length * 1.04, width * 1.15, "bark", dark, (3.0, 3.0)))
    return polygons


def _tree(rng: np.random.Generator, spot) -> list[_Quadric]:
    height = rng.uniform(4.5, 9.0)
    trunk, spread = rng.uniform(0.35, 0.5) * height, rng.uniform(0.26, 0.4) * height
    brown = np.array([0.36, 0.29, 0.22]) * rng.uniform(0.7, 1.3)
    green = np.array([0.3, 0.42, 0.16]) * rng.uniform(0.6, 1.25) + np.array([rng.uniform(0, 0.15), 0, 0])
    root = np.array([spot[0], spot[1], 0.0])
    radius = rng.uniform(0.12, 0.24)
    parts = [_Quadric(root, np.array([radius, radius, np.inf]), 0.0, trunk + 0.6, "bark", SIZE / 1.5, brown)]
    for _ in range(int(rng.integers(2, 5))):
        size = spread * rng.uniform(0.6, 1.0, 3)
        size[2] = min(size[2], (height - trunk) / 2)
        offset = rng.uniform(-0.5, 0.5, 3) * spread
        centre = root + np.array([offset[0], offset[1], max(trunk + size[2] * 0.8, trunk + spread + offset[2])])
        parts.append(_Quadric(centre, size, -np.inf, np.inf, "leaves", SIZE / 4.0, green * rng.uniform(0.85, 1.1)))
    return parts


def _pole(rng: np.random.Generator, spot, heading: float) -> tuple[list[_Polygon], list[_Quadric]]:
    """A lamp post, or a shorter post with a sign that faces the traffic."""
    root = np.array([spot[0], spot[1], 0.0])
    grey = _colour(rng, 0.45, 0.2)
    if rng.random() < 0.5:
        height, radius = rng.uniform(5, 8), rng.uniform(0.07, 0.11)
        lamp = _Quadric(root + UP * height, np.array([0.32, 0.32, 0.16]), -np.inf, np.inf, "metal", 64.0, grey * 1.4)
        return [], [_Quadric(root, np.array([radius, radius, np.inf]), 0.0, height, "bark", SIZE / 1.5, grey), lamp]
    height = rng.uniform(2.4, 3.2)
    post = _Quadric(root, np.array([0.05, 0.05, np.inf]), 0.0, height, "metal", SIZE / 1.5, grey)
    colour = np.array([(0.15, 0.3, 0.75), (0.8, 0.15, 0.1), (0.85, 0.7, 0.1), (0.85, 0.85, 0.85)][rng.integers(4)])
    size = rng.uniform(0.5, 0.9)
    sign = _box(spot, heading, 0.12, size, height - size, height, "metal", "metal", colour, (2.0, 2.0))
    return sign, [post]


def _colour(
    rng: np.random.Generator, lightness: float, spread: float, warm: float = 0.0, vivid: float = 0.1
) -> np.ndarray:
    tint = 1 + vivid * rng.uniform(-1, 1, 3) + warm * np.array([1.0, 0.1, -1.0])
    return np.clip(lightness * (1 + spread * rng.uniform(-1, 1)) * tint, 0.03, 1.15)


class _Plots:
    """Which ground is taken: circles that must not overlap, and the road, which nothing may stand on."""

    def __init__(self, road: Road):
        self.road = cKDTree(road.points)
        self.circles: list[tuple[float, float, float]] = []

    def take(self, spot, radius: float, from_road: float) -> bool:
        """Take a circle if it is free and its centre is `from_road` metres or more from the centre line."""
        if self.road.query(spot)[0] < from_road:
            return False
        if self.circles:
            x, y, r = np.array(self.circles).T
            if (np.hypot(x - spot[0], y - spot[1]) < 0.85 * (r + radius)).any():
                return False
        self.circles.append((spot[0], spot[1], radius))
        return True


def _furnish(rng: np.random.Generator, road: Road, length: float) -> tuple[Polygons, Quadrics]:
    polygons: list[_Polygon] = []
    quadrics: list[_Quadric] = []
    plots = _Plots(road)
    half = np.pi / 2
    for side in (1, -1):
        s = rng.uniform(0, 8)
        while s < length:  # houses, with a tree or a hedge before some
            width, depth = rng.uniform(7, 15), rng.uniform(7, 11)
            setback = PAVEMENT + rng.choice([0.6, 2.5, 5.0]) + rng.uniform(0, 1.5)
            spot, heading = road.at(s + width / 2, side * (setback + depth / 2))
            turned = float(heading) + (0.0 if rng.random() < 0.8 else rng.uniform(-0.3, 0.3))
            reach = np.hypot(width, depth) / 2
            if rng.random() < 0.88 and plots.take(spot, reach * 0.9, setback + depth / 2 - 0.3):
                polygons += _house(rng, spot, turned, width, depth)
                if setback > PAVEMENT + 2 and rng.random() < 0.7:
                    line, heading = road.at(s + width / 2, side * (PAVEMENT + 0.4))
                    texture = ("leaves", "fence", "wall")[rng.integers(3)]
                    paint = np.array([0.28, 0.42, 0.17]) if texture == "leaves" else _colour(rng, 0.6, 0.4, 0.1)
                    height, thick = rng.uniform(0.7, 1.6), 0.6 if texture == "leaves" else 0.15
                    tile = (2.0, height) if texture == "fence" else (2.4, 2.4)
                    if plots.road.query(line)[0] > PAVEMENT:
                        polygons += _box(line, float(heading), width, thick, 0, height, texture, texture, paint, tile)
            s += width + rng.uniform(0.5, 7)
        s = rng.uniform(0, 10)
        while s < length:  # trees of the avenue and in the gardens
            spot, _ = road.at(s, side * (PAVEMENT - 0.6 if rng.random() < 0.4 else rng.uniform(PAVEMENT + 1, 24)))
            if plots.take(spot, 0.8, PAVEMENT - 0.8):
                quadrics += _tree(rng, spot)
            s += rng.uniform(5, 16)
        s = rng.uniform(0, 10)
        while s < length:  # parked cars
            spot, heading = road.at(s, side * ((KERB + PARKING) / 2 + rng.uniform(-0.08, 0.08)))
            if rng.random() < 0.55:
                turned = float(heading) + (0 if side < 0 else np.pi) + rng.normal(0, 0.015)
                polygons += _car(rng, spot, turned)
            s += rng.uniform(5.6, 9.0)
        s = rng.uniform(0, 15)
        while s < length:  # lamps and signs
            spot, heading = road.at(s, side * (PARKING + 0.25))
            if plots.take(spot, 0.3, PARKING):
                post, parts = _pole(rng, spot, float(heading) + (0 if side < 0 else np.pi))
                polygons += post
                quadrics += parts
            s += rng.uniform(9, 28)
        s = 0.0
        while s < length:  # a second row of houses and, behind, woods that close the view
            spot, heading = road.at(s, side * rng.uniform(32, 42))
            if rng.random() < 0.6 and plots.take(spot, 8.0, 28.0):
                polygons += _house(rng, spot, float(heading) + rng.choice([0.0, half]), rng.uniform(9, 14), 9.0)
            spot, heading = road.at(s, side * rng.uniform(55, 95))
            if plots.road.query(spot)[0] > 45:
                green = np.array([0.25, 0.34, 0.17]) * rng.uniform(0.7, 1.2)
                size = rng.uniform(18, 34)
                height = rng.uniform(7, 16)
                polygons += _box(spot, float(heading), size, 6.0, 0, height, "leaves", "leaves", green, (8.0, 8.0))
            s += rng.uniform(14, 22)
    return _stack_polygons(polygons), _stack_quadrics(quadrics)


def _moving_cars(rng: np.random.Generator, road: Road, s: np.ndarray) -> list[Mover]:
    """Oncoming cars in the left lane, and one that drives ahead at the camera's own pace, now nearer, now farther."""
    movers = []
    frames = len(s)
    time = np.arange(frames) * FRAME_TIME
    limit = len(road.points) * STEP - 10
    gap = rng.uniform(14, 24) + 3 * _wander(rng, time, 0.03, 0.1)
    paths = [(np.maximum.accumulate(s + gap), -LANE, 0.0)]  # it never drives backwards
    start, pace = s[0] + rng.uniform(20, 50), rng.uniform(0.6, 1.3)  # of one pace, so that none runs into another
    while start < s[-1] + 1.5 * frames:
        paths.append((start - pace * np.arange(frames), LANE, np.pi))
        start += rng.uniform(25, 70)
    for along, left, turned in paths:
        position, heading = road.at(np.clip(along, 5, limit), left)
        movers.append(Mover(_stack_polygons(_car(rng, (0.0, 0.0), 0.0)), position, heading + turned))
    return movers


def _stack_polygons(polygons: list[_Polygon]) -> Polygons:
    edges, corners = [], []
    for p in polygons:
        step = np.roll(p.outline, -1, 0) - p.outline
        inwards = np.stack([-step[:, 1], step[:, 0]], -1) / np.linalg.norm(step, axis=1, keepdims=True)
        # 2 mm over the edge: two faces that meet in a corner must leave no gap for a ray to slip through.
        lines = np.concatenate([0.002 - (inwards * p.outline).sum(1, keepdims=True), inwards], 1)
        corner = p.origin + p.outline[:, :1] * p.axis_u + p.outline[:, 1:] * p.axis_v
        if len(lines) == 3:
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
        texture=np.array([NAMES.index(p.texture) for p in polygons]),
        paint=np.stack([p.paint for p in polygons]),
    )


def _stack_quadrics(quadrics: list[_Quadric]) -> Quadrics:
    return Quadrics(
        centre=np.stack([q.centre for q in quadrics]),
        radius=np.stack([q.radius for q in quadrics]),
        bottom=np.array([q.bottom for q in quadrics]),
        top=np.array([q.top for q in quadrics]),
        texture=np.array([NAMES.index(q.texture) for q in quadrics]),
        texels=np.array([q.texels for q in quadrics]),
        paint=np.stack([q.paint for q in quadrics]),
    )
