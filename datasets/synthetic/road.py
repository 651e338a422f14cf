"""The road of a street: a winding centre line on the plane z = 0.

World frame: x east, y north, z up, metres.
"""

from typing import NamedTuple

import numpy as np

VERTEX_SPACING = 0.5  # metres between two vertices of the centre line
LANE_OFFSET = 1.9  # metres from the centre line to the middle of a lane
# Metres from the centre line to the outer edge of asphalt, kerb, parking strip and pavement.
ASPHALT_END, KERB_END, PARKING_END, PAVEMENT_END = 4.2, 4.42, 6.3, 7.7
_MIN_RADIUS = 20.0  # metres, of a bend
_STRAIGHTS = (3.0, 25.0)  # metres, shortest and longest straight between two bends
_MAX_HEADING = 0.95  # radians to either side of the first heading: less than a right angle, so it never turns back


class CrossSection(NamedTuple):
    """One half of a road, all in metres from the centre line; the other half mirrors it."""

    asphalt: float = ASPHALT_END  # outer edge of the asphalt
    kerb: float = KERB_END  # of the kerb
    parking: float = PARKING_END  # of the parking strip
    pavement: float = PAVEMENT_END  # of the pavement
    lane: float = LANE_OFFSET  # middle of the lane that the camera's car follows, on the right
    textured: float = 8.0  # beyond it the ground shows grass instead of the road's texture
    period: float = 12.0  # metres along the road after which its texture repeats


PLAIN_SECTION = CrossSection()  # of the plain world's street


class Road(NamedTuple):
    """The centre line, with a vertex every `VERTEX_SPACING` metres."""

    points: np.ndarray  # [n, 2], metres
    heading: np.ndarray  # [n], radians from east to north
    curvature: np.ndarray  # [n], 1/m, positive to the left
    section: CrossSection = PLAIN_SECTION

    def at(self, s: np.ndarray | float, left: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Points [..., 2] and headings [...] at `s` metres along the line and `left` metres to its left."""
        s = np.asarray(s, float)
        stations = np.arange(len(self.heading)) * VERTEX_SPACING
        point = np.stack([np.interp(s, stations, self.points[:, k]) for k in range(2)], -1)
        heading = np.interp(s, stations, self.heading)
        return point + np.asarray(left)[..., None] * np.stack([-np.sin(heading), np.cos(heading)], -1), heading


def make_road(
    rng: np.random.Generator,
    length: float,
    section: CrossSection = PLAIN_SECTION,
    min_radius: float = _MIN_RADIUS,
    straights: tuple[float, float] = _STRAIGHTS,
    max_heading: float = _MAX_HEADING,
) -> Road:
    """A winding road of `length` metres: bends of random strength, joined by straights.

    Args:
        min_radius: metres, of the narrowest bend.
        straights: length of the shortest and the longest straight, metres.
        max_heading: radians to either side of the first heading, less than pi / 2.
    """
    knots_s, knots_heading = [0.0], [0.0]
    while knots_s[-1] < length:
        target = rng.uniform(-max_heading, max_heading)
        bend = abs(target - knots_heading[-1]) * min_radius * np.pi / 2 * rng.uniform(1.0, 2.0)
        knots_s += [knots_s[-1] + rng.uniform(*straights)]
        knots_heading += [knots_heading[-1]]
        knots_s += [knots_s[-1] + max(bend, 5.0)]
        knots_heading += [target]
    s = np.arange(0, length + VERTEX_SPACING, VERTEX_SPACING)
    k = np.clip(np.searchsorted(knots_s, s, side="right") - 1, 0, len(knots_s) - 2)
    start, end = np.take(knots_s, k), np.take(knots_s, k + 1)
    share = 0.5 - 0.5 * np.cos(np.pi * (s - start) / (end - start))  # a cosine: the curvature has no jump
    heading = np.take(knots_heading, k) * (1 - share) + np.take(knots_heading, k + 1) * share
    middle = (heading[1:] + heading[:-1]) / 2
    points = np.cumsum(np.stack([np.cos(middle), np.sin(middle)], -1) * VERTEX_SPACING, 0)
    heading += (turn := rng.uniform(0, 2 * np.pi))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.concatenate([np.zeros((1, 2)), points]) @ rotation.T
    return Road(points, heading, np.gradient(heading, VERTEX_SPACING), section)


def make_side_road(
    rng: np.random.Generator, road: Road, s: float, section: CrossSection, reach: float, both: bool
) -> Road:
    """A straight road that crosses another one at `s` metres, or begins there, at nearly a right angle.

    Args:
        reach: metres from the crossing to an end.
        both: it goes on at the other side.
    """
    middle, heading = road.at(s)
    turned = float(heading) + rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.3, 0.3)
    along = np.arange(-reach if both else 0.0, reach, VERTEX_SPACING)
    points = middle + along[:, None] * np.array([np.cos(turned), np.sin(turned)])
    return Road(points, np.full(len(along), turned), np.zeros(len(along)), section)
