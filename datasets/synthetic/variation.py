"""What differs from drive to drive in a varied world: the camera, the kind of road, the weather, the traffic.

A variation is drawn from the world's seed and the drive's number alone, so a drive's camera is known without its scene.
"""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.photo import Photo
from datasets.synthetic.road import CrossSection

KINDS = {"town": 0.34, "suburb": 0.2, "avenue": 0.16, "country": 0.14, "motorway": 0.16}  # and their shares
WEATHERS = {"sunny": 0.34, "low sun": 0.22, "clouds": 0.2, "overcast": 0.16, "fog": 0.08}
NARROWEST, MIDDLE, WIDEST = 35.0, 81.0, 110.0  # degrees: horizontal field of view; KITTI's is the most frequent
_TALLEST_VIEW = 75.0  # degrees: vertical field of view


@dataclass(frozen=True)
class Layout:
    """The lanes of a road, from which its cross-section follows."""

    lanes: int  # for each direction
    lane_width: float  # metres
    median: float  # metres between the two directions
    shoulder: float  # metres of asphalt beyond the outermost lane
    kerb: float  # metres; 0: none
    parking: float  # metres; 0: none
    pavement: float  # metres; 0: none
    own_lane: int  # of the camera's car, 0 is next to the middle

    def middle_of(self, lane: int) -> float:
        """Metres from the centre line to the middle of a lane."""
        return self.median / 2 + (lane + 0.5) * self.lane_width

    @property
    def lanes_end(self) -> float:
        """Metres from the centre line to the outer edge of the outermost lane."""
        return self.median / 2 + self.lanes * self.lane_width

    @property
    def section(self) -> CrossSection:
        asphalt = self.lanes_end + self.shoulder
        kerb = asphalt + self.kerb
        parking = kerb + self.parking
        pavement = parking + self.pavement
        wide = pavement > 10
        return CrossSection(
            asphalt, kerb, parking, pavement, self.middle_of(self.own_lane), pavement + 1.2, 18.0 if wide else 12.0
        )


@dataclass(frozen=True)
class Variation:
    """One drive's draws; see docs/world.md for the ranges."""

    kind: str
    layout: Layout
    side_layout: Layout  # of the roads that cross
    junctions: float  # metres from one to the next, about; inf: none
    pace: float  # factor on the speed of the plain world's car
    field_of_view: float  # degrees, horizontally
    pixel_aspect: float  # focal length along y / along x
    centre: tuple[float, float]  # principal point as a share of width and height
    camera_height: float  # metres
    mount: tuple[float, float, float]  # pitch, yaw, roll of the camera in the car, degrees
    jitter: float  # factor on the standard deviation of pitch and roll
    steepest: float  # largest slope of the ground, metres per metre; 0: level
    weather: str
    sun_elevation: float  # degrees
    sunlight: float  # share of the light
    cloud_cover: float  # 0 to 1
    haze_distance: float  # metres
    traffic: float  # other cars per 100 m of a lane
    jam: bool  # the traffic is slow and dense
    photo: Photo

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """K [3, 3] in pixels of an image of this size."""
        fx = width / 2 / np.tan(np.radians(self.field_of_view / 2))
        # Narrower pixels show what other aspect ratios show; `pixel_aspect` is meant for a 3.3 : 1 image.
        fy = max(fx * self.pixel_aspect, height / 2 / np.tan(np.radians(_TALLEST_VIEW / 2)))
        cx, cy = self.centre[0] * width - 0.5, self.centre[1] * height - 0.5
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def draw_variation(seed: int, number: int, width: int, height: int) -> Variation:
    """The variation of a drive, which depends on these numbers alone.

    Args:
        seed: the world's seed.
        number: the drive's number, from 1.
        width, height: of the images, pixels; they decide how other aspect ratios are squeezed.
    """
    rng = np.random.default_rng([seed, number, 3])
    camera_rng, road_rng, weather_rng, traffic_rng, photo_rng, hills_rng, junction_rng = rng.spawn(7)
    kind = str(road_rng.choice(list(KINDS), p=list(KINDS.values())))
    layout = _draw_layout(road_rng, kind)
    jam = bool(kind in ("avenue", "motorway") and traffic_rng.random() < 0.4)
    pace = {"town": 1.0, "suburb": 1.0, "avenue": 1.2, "country": 1.5, "motorway": 1.9}[kind]
    pace = 0.45 if jam else pace * traffic_rng.uniform(0.75, 1.15)
    traffic = traffic_rng.uniform(5.0, 9.0) if jam else traffic_rng.uniform(0.8, 3.2)
    weather = str(weather_rng.choice(list(WEATHERS), p=list(WEATHERS.values())))
    elevation, sunlight, cover, haze = _draw_weather(weather_rng, weather)
    aspect = 1.0
    if camera_rng.random() < 0.5:  # an image of another shape, squeezed into this one
        aspect = np.exp(camera_rng.uniform(np.log(4 / 3), np.log(3.6))) * height / width
    return Variation(
        kind=kind,
        layout=layout,
        side_layout=_draw_side_layout(junction_rng, kind),
        junctions=np.inf if kind == "motorway" or junction_rng.random() < 0.25 else junction_rng.uniform(45, 160),
        pace=pace,
        field_of_view=camera_rng.triangular(NARROWEST, MIDDLE, WIDEST),
        pixel_aspect=aspect * camera_rng.uniform(0.97, 1.03),
        centre=(0.5 + camera_rng.normal(0, 0.01), float(np.clip(camera_rng.normal(0.48, 0.03), 0.38, 0.58))),
        camera_height=camera_rng.triangular(1.2, 1.6, 2.2),
        mount=tuple(np.clip(camera_rng.normal(0, (1.0, 0.7, 0.7)), -2.5, 2.5).tolist()),
        jitter=camera_rng.uniform(0.5, 2.0),
        steepest=_draw_slope(hills_rng, kind),
        weather=weather,
        sun_elevation=elevation,
        sunlight=sunlight,
        cloud_cover=cover,
        haze_distance=haze,
        traffic=traffic,
        jam=jam,
        photo=_draw_photo(photo_rng, weather),
    )


def _draw_layout(rng: np.random.Generator, kind: str) -> Layout:
    if kind == "town":
        parking = rng.uniform(1.9, 2.3) if rng.random() < 0.7 else 0.0
        return Layout(1, rng.uniform(2.7, 3.6), 0.0, rng.uniform(0.1, 0.5), 0.2, parking, rng.uniform(1.2, 3.0), 0)
    if kind == "suburb":
        parking = rng.uniform(1.9, 2.2) if rng.random() < 0.4 else 0.0
        return Layout(1, rng.uniform(2.6, 3.4), 0.0, rng.uniform(0.1, 0.4), 0.18, parking, rng.uniform(1.0, 2.2), 0)
    if kind == "avenue":
        lanes = int(rng.integers(2, 4))
        median = rng.uniform(1.0, 5.0) if rng.random() < 0.6 else 0.0
        width = rng.uniform(3.0, 3.5)
        parking = 2.1 if rng.random() < 0.3 else 0.0
        return Layout(lanes, width, median, 0.3, 0.2, parking, rng.uniform(2, 4), int(rng.integers(lanes)))
    if kind == "country":
        return Layout(1, rng.uniform(2.8, 3.7), 0.0, rng.uniform(0.2, 0.6), 0.0, 0.0, rng.uniform(0.5, 1.4), 0)
    lanes = int(rng.integers(2, 4))
    shoulder = rng.uniform(2.3, 3.0) if rng.random() < 0.7 else 0.8
    return Layout(lanes, rng.uniform(3.4, 3.8), rng.uniform(2, 5), shoulder, 0, 0, 0.8, int(rng.integers(lanes)))


def _draw_side_layout(rng: np.random.Generator, kind: str) -> Layout:
    kerb, pavement = (0.0, 0.8) if kind == "country" else (0.2, rng.uniform(1.2, 2.5))
    return Layout(1, rng.uniform(2.4, 3.3), 0.0, 0.2, kerb, 0.0, pavement, 0)


def _draw_slope(rng: np.random.Generator, kind: str) -> float:
    return rng.uniform(0.015, 0.05 if kind == "motorway" else 0.08) if rng.random() < 0.5 else 0.0


def _draw_weather(rng: np.random.Generator, weather: str) -> tuple[float, float, float, float]:
    """Elevation of the sun in degrees, share of its light, cover of clouds, distance of the haze in metres."""
    elevation, sunlight, cover, haze = {
        "sunny": ((30, 65), (0.55, 0.75), (0.0, 0.5), (300, 1500)),
        "low sun": ((9, 25), (0.6, 0.8), (0.0, 0.4), (200, 1000)),
        "clouds": ((20, 55), (0.2, 0.45), (0.5, 0.9), (200, 900)),
        "overcast": ((20, 60), (0.0, 0.1), (0.95, 1.0), (150, 700)),
        "fog": ((20, 60), (0.0, 0.1), (1.0, 1.0), (45, 140)),
    }[weather]
    distance = float(np.exp(rng.uniform(*np.log(haze))))
    return rng.uniform(*elevation), rng.uniform(*sunlight), rng.uniform(*cover), distance


def _draw_photo(rng: np.random.Generator, weather: str) -> Photo:
    tint, shift = rng.normal(0, 0.05), rng.normal(0, 0.015)  # blue to red, green to magenta
    noise = np.exp(rng.uniform(np.log(0.002), np.log(0.02)))
    dim = weather in ("overcast", "fog")
    return Photo(
        gain=float(np.exp(rng.normal(0.1 if dim else 0.32, 0.24))),
        white_balance=(float(np.exp(tint)), float(np.exp(shift)), float(np.exp(-tint))),
        gamma=float(np.exp(rng.uniform(-0.45, 0.25))),
        contrast=rng.uniform(-0.3, 0.8),
        black=float(max(0.0, rng.normal(0.0, 0.04))),
        saturation=0.0 if rng.random() < 0.25 else rng.uniform(0.5, 1.3),
        vignette=rng.uniform(0.0, 0.5) if rng.random() < 0.6 else 0.0,
        shutter=rng.uniform(0.02, 0.16) if rng.random() < 0.6 else 0.0,
        softness=rng.uniform(0.1, 0.7) if rng.random() < 0.4 else 0.0,
        shot_noise=noise * rng.uniform(0.5, 2.0),
        read_noise=noise * rng.uniform(0.2, 0.8),
        jpeg=int(rng.integers(45, 97)) if rng.random() < 0.6 else 0,
        seed=int(rng.integers(2**31)),
    )
