"""One drive's scene of a varied world: the scene that its `Variation` describes."""

import numpy as np

from datasets.synthetic.camera_path import MAX_STEP, START, camera_poses, random_sines, travel
from datasets.synthetic.road import VERTEX_SPACING, Road, make_road, make_side_road
from datasets.synthetic.roadside import place_roadside
from datasets.synthetic.scene import BEYOND_END, Mover, Scene
from datasets.synthetic.sensors import FRAME_TIME
from datasets.synthetic.shapes import stack_polygons
from datasets.synthetic.terrain import make_terrain
from datasets.synthetic.variation import Variation
from datasets.synthetic.vehicles import vehicle
from geometry.rigid import axis_rotation

# Of each kind of road: the narrowest bend, the straights between bends (metres), the largest turn (radians).
_COURSES = {
    "town": (25.0, (15.0, 90.0), 0.8),
    "suburb": (22.0, (5.0, 60.0), 0.95),
    "avenue": (60.0, (30.0, 150.0), 0.5),
    "country": (50.0, (5.0, 120.0), 0.7),
    "motorway": (250.0, (30.0, 200.0), 0.35),
}
_IN_SIGHT = 150.0  # metres ahead of the camera up to which other cars drive


def make_varied_scene(
    rng: np.random.Generator,
    frames: int,
    variation: Variation,
    *,
    moving_cars: bool = False,
    halts: bool = True,
    exposure_changes: bool = False,
    jitter: float = 0.25,
) -> Scene:
    """A road and a drive of `frames` frames along it. Arguments: see `scene.make_scene`."""
    road_rng, drive_rng, objects_rng, light_rng, car_rng, terrain_rng, junction_rng = rng.spawn(7)
    radius, straights, turn = _COURSES[variation.kind]
    length = START + MAX_STEP * max(variation.pace, 0.3) * frames + BEYOND_END
    road = make_road(road_rng, length, variation.layout.section, radius, straights, turn)
    s = START + travel(drive_rng, road, frames, halts, variation.pace)
    poses = camera_poses(drive_rng, road, s, jitter * variation.jitter, variation.camera_height)
    pitch, yaw, roll = np.radians(variation.mount)
    poses[:, :3, :3] = poses[:, :3, :3] @ axis_rotation(1, yaw) @ axis_rotation(0, pitch) @ axis_rotation(2, roll)

    terrain = make_terrain(terrain_rng, road.points, variation.steepest) if variation.steepest else None
    if terrain is not None:
        poses = terrain.lift_poses(poses)
    side_roads = _junctions(junction_rng, road, s[-1] + BEYOND_END, variation)
    polygons, quadrics = place_roadside(objects_rng, road, side_roads, s[-1] + BEYOND_END, variation, terrain)
    movers = []
    if moving_cars:
        movers = _traffic(car_rng, road, s, variation)
        movers += _crossing(car_rng, side_roads, movers, poses[:, :2, 3], variation)
    elevation, azimuth = np.radians(variation.sun_elevation), light_rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    warmth = light_rng.uniform(-0.04, 0.04) + (0.06 if variation.weather == "low sun" else 0.0)
    tint = np.array([warmth, 0, -warmth])
    time = (np.cumsum(np.diff(s, prepend=-1.0) > 0) - 1) * FRAME_TIME  # stops while the car stands
    gain = np.exp(0.08 * light_rng.standard_normal(frames))
    bright = light_rng.uniform(1.0, 1.8)
    return Scene(
        road=road,
        polygons=polygons,
        quadrics=quadrics,
        movers=movers,
        side_roads=tuple(side_roads),
        world_from_camera=poses,
        sun=sun,
        sunlight=variation.sunlight,
        sky=np.array([0.36, 0.55, 0.88]) * light_rng.uniform(0.7, 1.05) + tint,
        haze=np.array([0.76, 0.8, 0.85]) * light_rng.uniform(0.85, 1.15) + tint,
        haze_distance=variation.haze_distance,
        light=1 + 0.05 * random_sines(light_rng, time, 0.02, 0.12),
        exposure=gain if exposure_changes else np.ones(frames),
        sky_fade=1 / (1000 if variation.weather == "fog" else light_rng.uniform(2000, 6000)),
        sky_light=bright,
        terrain=terrain,
        shadows=variation.sunlight > 0.15,
        photo=variation.photo,
    )


def _traffic(rng: np.random.Generator, road: Road, s: np.ndarray, variation: Variation) -> list[Mover]:
    """Vehicles in all lanes: ahead of the camera, beside it, and oncoming.

    `s` [frames] is the camera's way along the road, metres. All vehicles of a lane keep their distances, so that none
    meets another.
    """
    layout, time = variation.layout, np.arange(len(s)) * FRAME_TIME
    large = rng.uniform(0.1, 0.4) if variation.kind == "motorway" or variation.jam else 0.08
    movers = []
    for lane in range(layout.lanes):
        for direction in (1, -1):
            own = direction == 1 and lane == layout.own_lane
            if direction == 1:
                speed = 1.0 if own else rng.uniform(0.75, 1.25)
                moved = s[0] + speed * (s - s[0]) + 1.5 * random_sines(rng, time, 0.03, 0.1)
                moved = np.maximum.accumulate(moved) - s[0]
            else:
                moved = time / FRAME_TIME * variation.pace * rng.uniform(0.7, 1.2)
            reach = moved[-1] if direction == -1 else max(0.0, s[-1] - s[0] - moved[-1])
            at = (rng.uniform(7, 12) if variation.jam else rng.uniform(12, 40)) if own else rng.uniform(-18, 30)
            while at < _IN_SIGHT + reach:
                shapes, length = vehicle(rng, (0.0, 0.0), 0.0, large)
                at += length / 2
                along = s[0] + at + moved if direction == 1 else s[0] + at - moved
                position, heading = _on_lane(road, along, -direction * layout.middle_of(lane))
                movers.append(Mover(stack_polygons(shapes), position, heading + (0 if direction == 1 else np.pi)))
                at += length / 2 + max(3.0, rng.exponential(100 / variation.traffic) * rng.uniform(0.4, 1.2))
    return movers


def _junctions(rng: np.random.Generator, road: Road, length: float, variation: Variation) -> list[Road]:
    """The roads that cross the road or begin at it, along its first `length` metres."""
    roads = []
    if np.isfinite(variation.junctions):
        s = rng.uniform(0.2, 1.2) * variation.junctions
        while s < length:
            both = bool(rng.random() < 0.5)
            roads.append(make_side_road(rng, road, s, variation.side_layout.section, 60.0, both))
            s += variation.junctions * rng.uniform(0.7, 1.5)
    return roads


def _crossing(
    rng: np.random.Generator, roads: list[Road], others: list[Mover], path: np.ndarray, variation: Variation
) -> list[Mover]:
    """Vehicles on the side roads that cross the road where no other one and not the camera is.

    `path` [frames, 2]: the camera's places, metres.
    """
    movers: list[Mover] = []
    time = np.arange(len(path))
    for road in roads:
        reach = len(road.points) * VERTEX_SPACING
        if np.linalg.norm(road.points.mean(0) - path, axis=1).min() > 120:
            continue
        for direction in (1, -1):
            start, pace = rng.uniform(0, reach), rng.uniform(0.5, 1.2)
            along = start + direction * pace * time
            position, heading = _on_lane(road, along, -direction * variation.side_layout.middle_of(0))
            taken = [path, *(mover.position for mover in (*others, *movers))]
            if min(np.linalg.norm(place - position, axis=1).min() for place in taken) > 9:
                shapes, _ = vehicle(rng, (0.0, 0.0), 0.0, 0.0)
                movers.append(Mover(stack_polygons(shapes), position, heading + (0 if direction == 1 else np.pi)))
    return movers


def _on_lane(road: Road, along: np.ndarray, left: float) -> tuple[np.ndarray, np.ndarray]:
    """`Road.at`, with straight lanes beyond the road's ends."""
    inside = np.clip(along, 0, (len(road.points) - 1) * VERTEX_SPACING)
    position, heading = road.at(inside, left)
    beyond = (along - inside)[:, None]
    return position + beyond * np.stack([np.cos(heading), np.sin(heading)], -1), heading
