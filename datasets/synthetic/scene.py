"""One drive's scene, drawn from a seed: the street, the camera's path, other cars and the light.

World frame: x east, y north, z up, metres; the ground is the plane z = 0.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from datasets.synthetic.camera_path import MAX_STEP, START, camera_poses, random_sines, travel
from datasets.synthetic.objects import car
from datasets.synthetic.photo import Photo
from datasets.synthetic.road import LANE_OFFSET, VERTEX_SPACING, Road, make_road
from datasets.synthetic.sensors import FRAME_TIME
from datasets.synthetic.shapes import Polygons, Quadrics, join_polygons, stack_polygons
from datasets.synthetic.street import place_objects
from datasets.synthetic.terrain import Terrain

BEYOND_END = 200.0  # metres of street after the last frame


class Mover(NamedTuple):
    """Another car that drives along the road."""

    polygons: Polygons  # in the car's own frame: x forward, the origin on the ground below its middle
    position: np.ndarray  # [frames, 2], metres: its middle in the world
    heading: np.ndarray  # [frames], radians


@dataclass
class Scene:
    """One drive's street and the path of its left camera."""

    road: Road
    polygons: Polygons
    quadrics: Quadrics
    movers: list[Mover]
    world_from_camera: np.ndarray  # [frames, 4, 4], the left camera
    sun: np.ndarray  # [3], unit vector towards the sun
    sunlight: float  # share of the light that comes from the sun; the rest is ambient
    sky: np.ndarray  # [3], the blue of the sky
    haze: np.ndarray  # [3], the colour that distant surfaces fade to
    haze_distance: float  # metres after which 1 - 1/e of the colour is haze
    light: np.ndarray  # [frames], brightness of the whole scene (clouds before the sun)
    exposure: np.ndarray  # [frames], gain of the camera
    sky_fade: float = 1 / 4000  # share of haze per metre, before the clouds
    sky_light: float = 1.0  # brightness of the sky
    side_roads: tuple[Road, ...] = ()
    terrain: Terrain | None = None  # None: the ground is level; its strips are the first polygons
    shadows: bool = False  # what stands still casts shadows
    photo: Photo | None = None  # what the camera does to its pictures; None: nothing
    _at: tuple[int, Polygons] | None = field(default=None, repr=False)  # the last result of `polygons_at`

    def polygons_at(self, frame: int) -> Polygons:
        """All polygons at the time of a frame, with the moving cars in their places."""
        if not self.movers:
            return self.polygons
        if self._at is None or self._at[0] != frame:
            moved = [self._moved(mover, frame) for mover in self.movers]
            self._at = frame, join_polygons([self.polygons, *moved])
        return self._at[1]

    def _moved(self, mover: Mover, frame: int) -> Polygons:
        """A moving car at its place at the time of a frame."""
        polygons = mover.polygons.moved(mover.heading[frame], *mover.position[frame])
        return polygons if self.terrain is None else self.terrain.lift_mover(polygons, mover.position[frame])

    @property
    def strips(self) -> int:
        """How many of the first polygons are strips of the ground."""
        return 0 if self.terrain is None else len(self.terrain.knots) - 1

    @property
    def base(self) -> float:
        """Height of the plane that is the ground where there are no strips, metres."""
        return 0.0 if self.terrain is None else self.terrain.lowest - 0.5


def make_scene(
    rng: np.random.Generator,
    frames: int,
    *,
    moving_cars: bool = False,
    halts: bool = True,
    exposure_changes: bool = False,
    jitter: float = 0.25,
) -> Scene:
    """A street and a drive of `frames` frames through it.

    Args:
        rng: the source of everything that differs between drives.
        moving_cars: other cars drive in both lanes.
        halts: the car stops for one to two seconds: in drives of 40 to 200 frames mostly once or never, in longer
            ones every ten to twenty seconds.
        exposure_changes: the camera's gain jumps between frames.
        jitter: standard deviation of pitch and roll, degrees.
    """
    road_rng, drive_rng, objects_rng, light_rng, car_rng = rng.spawn(5)
    road = make_road(road_rng, START + MAX_STEP * frames + BEYOND_END)
    s = START + travel(drive_rng, road, frames, halts)
    world_from_camera = camera_poses(drive_rng, road, s, jitter)

    elevation, azimuth = np.radians(light_rng.uniform(25, 60)), light_rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    warmth = light_rng.uniform(-0.03, 0.03)
    polygons, quadrics = place_objects(objects_rng, road, s[-1] + BEYOND_END)
    # The time of the light stops while the car stands, so that static frames are equal.
    time = (np.cumsum(np.diff(s, prepend=-1.0) > 0) - 1) * FRAME_TIME
    light = light_rng.uniform(0.8, 1.15) * (1 + 0.12 * random_sines(light_rng, time, 0.02, 0.12))
    gain = np.exp(0.08 * light_rng.standard_normal(frames))  # always drawn: what is drawn next must not depend on it
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


def _moving_cars(rng: np.random.Generator, road: Road, s: np.ndarray) -> list[Mover]:
    """A car that drives ahead of the camera at a varying distance, and oncoming cars in the left lane.

    `s` [frames] is the camera's way along the road, metres.
    """
    movers = []
    frames = len(s)
    time = np.arange(frames) * FRAME_TIME
    limit = len(road.points) * VERTEX_SPACING - 10
    gap = rng.uniform(14, 24) + 3 * random_sines(rng, time, 0.03, 0.1)
    paths = [(np.maximum.accumulate(s + gap), -LANE_OFFSET, 0.0)]  # the maximum: it never drives backwards
    start, pace = s[0] + rng.uniform(20, 50), rng.uniform(0.6, 1.3)  # all have one pace, so none meets another
    while start < s[-1] + MAX_STEP * frames:
        paths.append((start - pace * np.arange(frames), LANE_OFFSET, np.pi))
        start += rng.uniform(25, 70)
    for along, left, turned in paths:
        position, heading = road.at(np.clip(along, 5, limit), left)
        movers.append(Mover(stack_polygons(car(rng, (0.0, 0.0), 0.0)), position, heading + turned))
    return movers
