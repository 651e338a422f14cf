"""What stands along a road of a varied world: buildings, trees, hedges, barriers, bridges, signs, parked vehicles.

As in `street.py`, each row walks along the road in steps of random length and places an object if the ground is free.
`side` is 1 for the left of the road and -1 for its right.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree

from datasets.synthetic.objects import gable_roof, pole, random_colour
from datasets.synthetic.road import VERTEX_SPACING, Road
from datasets.synthetic.shapes import (
    Polygon,
    Polygons,
    Quadric,
    Quadrics,
    axes,
    box,
    rectangle,
    stack_polygons,
    stack_quadrics,
)
from datasets.synthetic.street import FreeGround
from datasets.synthetic.terrain import Terrain
from datasets.synthetic.textures import SIZE
from datasets.synthetic.variation import Variation
from datasets.synthetic.vehicles import vehicle


@dataclass
class _Plot:
    """A road, the ground beside it, and the shapes that were placed so far."""

    rng: np.random.Generator
    road: Road
    length: float  # metres of road
    ground: FreeGround
    terrain: Terrain | None
    others: cKDTree  # points on the centre lines of the roads that cross this one
    clear: float  # metres to them that stay free
    polygons: list[Polygon] = field(default_factory=list)
    quadrics: list[Quadric] = field(default_factory=list)

    def add(self, spot: np.ndarray, shapes: list[Polygon], follow: bool = True) -> None:
        """Place an object that stands at `spot` [2]; `follow`: it tilts with the ground."""
        terrain = self.terrain
        self.polygons += shapes if terrain is None else [terrain.lift_polygon(p, spot, follow) for p in shapes]

    def crossed(self, spot: np.ndarray) -> bool:
        """Whether a place (x, y) is where another road crosses."""
        return bool(self.others.query(spot)[0] < self.clear)

    def add_round(self, shapes: list[Quadric]) -> None:
        terrain = self.terrain
        self.quadrics += shapes if terrain is None else [terrain.lift_quadric(q) for q in shapes]


def place_roadside(
    rng: np.random.Generator,
    road: Road,
    side_roads: list[Road],
    length: float,
    variation: Variation,
    terrain: Terrain | None = None,
) -> tuple[Polygons, Quadrics]:
    """All that stands along the first `length` metres of the road."""
    sides = np.concatenate([np.full((1, 2), 1e6), *(side.points for side in side_roads)])
    clear = variation.side_layout.section.kerb + 4
    plot = _Plot(rng, road, length, FreeGround(road, *side_roads), terrain, cKDTree(sides), clear)
    if terrain is not None:
        plot.polygons += terrain.strips()
    kind, pavement = variation.kind, road.section.pavement
    if kind == "motorway" or (kind in ("avenue", "country") and rng.random() < 0.35):
        _bridges(plot, variation)
    for side in (1, -1):
        if kind in ("town", "suburb", "avenue"):
            _buildings(plot, side, kind)
            _parked(plot, side, rng.uniform(0.3, 0.95) if road.section.parking > road.section.kerb + 1 else 0.12)
            _poles(plot, side, road.section.parking + 0.3, (9, 28))
            _trees(plot, side, (max(pavement - 0.7, road.section.parking + 0.6), pavement + 14), _tree_step(rng, kind))
            _bushes(plot, side, (pavement + 0.6, pavement + 7), (3, 14) if kind == "suburb" else (8, 40))
            _blocks_behind(plot, side)
        else:
            _barriers(plot, side, kind)
            _trees(plot, side, (pavement + 1.5, pavement + 30), (4, 22) if rng.random() < 0.6 else (15, 60))
            _bushes(plot, side, (pavement + 2, pavement + 12), (3, 12) if rng.random() < 0.5 else (10, 50))
            _poles(plot, side, pavement + 0.8, (20, 60))
            _farms(plot, side, (40, 160) if kind == "country" else (120, 400))
        _boards(plot, side, (40, 150) if kind == "motorway" else (90, 400))
        _woods(plot, side, kind)
    for side_road in side_roads:
        _along_side_road(plot, side_road, kind)
    if variation.layout.median > 1.2:
        _median(plot, variation)
    return stack_polygons(plot.polygons), stack_quadrics(plot.quadrics)


def _along_side_road(plot: _Plot, road: Road, kind: str) -> None:
    """Buildings, trees and parked vehicles along a road that crosses."""
    length = len(road.points) * VERTEX_SPACING
    main = cKDTree(plot.road.points)
    part = replace(plot, road=road, length=length, others=main, clear=plot.road.section.pavement + 3)
    for side in (1, -1):
        if kind == "country":
            _bushes(part, side, (road.section.pavement + 1, road.section.pavement + 5), (4, 30))
        else:
            _buildings(part, side, kind)
            _parked(part, side, 0.3)
        _trees(part, side, (road.section.pavement + 0.5, road.section.pavement + 10), (8, 30))


def _tree_step(rng: np.random.Generator, kind: str) -> tuple[float, float]:
    """Shortest and longest distance between two trees, metres."""
    least = rng.uniform(4, 14) if kind == "suburb" else rng.uniform(5, 25)
    return least, least * rng.uniform(1.2, 3)


def _buildings(plot: _Plot, side: int, kind: str) -> None:
    """Buildings that face the road: terraces or detached, with hedges, fences and walls before them."""
    rng, road = plot.rng, plot.road
    pavement = road.section.pavement
    terrace = kind == "town" and rng.random() < 0.5
    near = {"town": rng.uniform(0.3, 2.5), "suburb": rng.uniform(2.5, 7), "avenue": rng.uniform(3, 12)}[kind]
    tallest = {"town": 4, "suburb": 2, "avenue": 6}[kind]
    dense = rng.uniform(0.55, 0.98)
    s = rng.uniform(0, 8)
    while s < plot.length:
        width, depth = rng.uniform(7, 14 if kind != "avenue" else 28), rng.uniform(7, 12)
        setback = pavement + near + rng.uniform(0, 0.3 if terrace else 3)
        spot, heading = road.at(s + width / 2, side * (setback + depth / 2))
        turned = float(heading) + (rng.uniform(-0.3, 0.3) if rng.random() < 0.15 and not terrace else 0.0)
        reach = np.hypot(width, depth) / 2
        if rng.random() < dense and plot.ground.take(
            spot, reach * (0.7 if terrace else 0.9), setback + depth / 2 - 0.5
        ):
            plot.add(spot, building(rng, spot, turned, width, depth, int(rng.integers(1, tallest + 1))), follow=False)
            if near > 2 and rng.random() < 0.75:
                _enclosure(plot, side, s + width / 2, width, pavement + 0.4)
        s += width + (rng.uniform(0, 0.4) if terrace else rng.uniform(0.5, 9))


def building(
    rng: np.random.Generator, middle, heading: float, length: float, depth: float, storeys: int
) -> list[Polygon]:
    """Walls with windows under a gable or flat roof, sometimes with a porch, a bay or a garage."""
    storey = rng.uniform(2.7, 3.3)
    walls = storeys * storey
    tile = (rng.uniform(3.0, 8.0), 2 * storey)
    facade = f"facade_{rng.integers(6)}"
    paint = random_colour(rng, rng.choice([0.35, 0.6, 0.85, 1.05]), 0.25, warm=0.15)
    offset = (rng.random(), 0.0)
    polygons = box(middle, heading, length, depth, -1.5, walls, facade, "concrete", paint, tile, offset)
    if rng.random() < 0.65 and storeys < 5:
        polygons += gable_roof(rng, np.array([middle[0], middle[1], walls]), heading, length, depth, paint)
    forward, left = axes(heading)
    for _ in range(int(rng.integers(0, 3))):  # a porch, bay or garage at any side
        along, side = rng.uniform(-0.35, 0.35) * length, rng.choice([-1, 1])
        spot = np.asarray(middle) + forward[:2] * along + side * left[:2] * (depth / 2 + 0.3)
        size, height = rng.uniform(1.5, 4.0), min(walls - 0.2, rng.uniform(2.2, 3.2) * rng.integers(1, 3))
        texture = rng.choice(["wall", facade, "concrete", "fence"])
        polygons += box(spot, heading, size, 1.6, -1.5, height, str(texture), "roof", paint * rng.uniform(0.5, 1.1))
    return polygons


def _enclosure(plot: _Plot, side: int, s: float, width: float, away: float) -> None:
    """A hedge, fence or wall along the road, around `s` metres along it."""
    rng = plot.rng
    middle, heading = plot.road.at(s, side * away)
    if plot.ground.distance_to_road(middle) <= away - 0.4:
        return
    texture = str(rng.choice(["leaves", "leaves_1", "fence", "wall", "concrete", "rail"]))
    hedge = texture.startswith("leaves")
    paint = _green(rng) if hedge else random_colour(rng, rng.choice([0.35, 0.6, 0.9]), 0.3, 0.1)
    height, thickness = rng.uniform(0.6, 2.0), 0.7 if hedge else 0.15
    tile = (2.0, height) if texture in ("fence", "rail") else (2.4, 2.4)
    shapes = box(middle, float(heading), width, thickness, -0.5, height, texture, texture, paint, tile)
    plot.add(middle, shapes)


def _green(rng: np.random.Generator) -> np.ndarray:
    """The colour of leaves: from bright to dark green, sometimes yellow or brown."""
    green = np.array([0.3, 0.42, 0.16]) * rng.uniform(0.35, 1.25)
    return green + np.array([rng.uniform(0, 0.2), rng.uniform(0, 0.04), 0]) * (rng.random() < 0.5)


def _trees(plot: _Plot, side: int, across: tuple[float, float], step: tuple[float, float]) -> None:
    """Trees at `across` metres from the centre line: half of them in a row at the road's edge."""
    rng = plot.rng
    s = rng.uniform(0, 10)
    row = rng.random() < 0.6
    while s < plot.length:
        at = across[0] + rng.uniform(0, 0.3) if row and rng.random() < 0.7 else rng.uniform(*across)
        spot, _ = plot.road.at(s, side * at)
        if plot.ground.take(spot, 0.8, across[0] - 0.2):
            plot.add_round(tree(rng, spot, detail=1.0 if at < across[0] + 8 else 0.5))
        s += rng.uniform(*step)


def tree(rng: np.random.Generator, spot, detail: float = 1.0) -> list[Quadric]:
    """A broad-leaved tree, a conifer or a poplar; `detail` is a factor on the number of ellipsoids."""
    kind = str(rng.choice(["broad", "broad", "broad", "conifer", "poplar", "young"]))
    shortest, tallest = {"broad": (5, 13), "conifer": (6, 16), "poplar": (8, 18), "young": (3, 5.5)}[kind]
    height = rng.uniform(shortest, tallest)
    brown = np.array([0.34, 0.28, 0.22]) * rng.uniform(0.4, 1.3)
    green, leaves = _green(rng), str(rng.choice(["leaves", "leaves_1", "leaves_2"]))
    root = np.array([spot[0], spot[1], 0.0])
    thick = height * rng.uniform(0.012, 0.028)
    clear = height * float({"broad": rng.uniform(0.2, 0.45), "conifer": 0.1, "poplar": 0.12, "young": 0.4}[kind])
    parts = [Quadric(root, np.array([thick, thick, np.inf]), -1.0, clear + 0.25 * height, "bark", SIZE / 1.5, brown)]
    count = max(3, round(detail * {"broad": int(rng.integers(6, 11)), "conifer": 6, "poplar": 5, "young": 4}[kind]))
    spread = height * {"broad": rng.uniform(0.22, 0.4), "conifer": 0.19, "poplar": 0.1, "young": 0.16}[kind]
    crown = (height - clear) / 2
    for k in range(count):
        if kind in ("broad", "young"):  # around a core, which makes the outline ragged
            tilt = rng.uniform(-0.7, 1.0)
            out = spread * rng.uniform(0.4, 0.85) * np.sqrt(max(0.0, 1 - tilt * tilt)) if k else 0.0
            middle, size = crown * (1 + (0.75 * tilt if k else 0.0)), np.array([spread, spread, crown])
            size = size * (rng.uniform(0.22, 0.5, 3) if k else 0.66)
        else:  # one above the other, each shifted to a side
            share = (k + 0.5) / count
            wide = spread * (1.05 - share) if kind == "conifer" else spread * np.sin(np.pi * (0.2 + 0.75 * share))
            out, middle = 0.25 * wide, 2 * crown * share
            size = np.array([wide, wide, 2.4 * crown / count]) * rng.uniform(0.8, 1.2, 3)
        angle = rng.uniform(0, 2 * np.pi)
        centre = np.array([out * np.cos(angle), out * np.sin(angle), clear + middle])
        paint = green * rng.uniform(0.75, 1.25)
        parts.append(Quadric(root + centre, size, -np.inf, np.inf, leaves, SIZE / rng.uniform(2, 4.5), paint))
    return parts


def _bushes(plot: _Plot, side: int, across: tuple[float, float], step: tuple[float, float]) -> None:
    rng = plot.rng
    s = rng.uniform(0, 10)
    while s < plot.length:
        spot, _ = plot.road.at(s, side * rng.uniform(*across))
        size = rng.uniform(0.5, 1.7)
        if plot.ground.take(spot, 0.7 * size, across[0] + 0.6 * size):
            green, leaves = _green(rng), str(rng.choice(["leaves", "leaves_1", "leaves_2"]))
            for _ in range(int(rng.integers(1, 3))):
                radius = size * rng.uniform(0.5, 1.0, 3)
                centre = np.array([*(spot + rng.normal(0, 0.45 * size, 2)), radius[2] * rng.uniform(0.2, 0.8)])
                plot.add_round([Quadric(centre, radius, -np.inf, np.inf, leaves, SIZE / 2.5, green)])
        s += rng.uniform(*step)


def _parked(plot: _Plot, side: int, share: float) -> None:
    """Vehicles on the parking strip, or half on the pavement where there is none."""
    rng, section = plot.rng, plot.road.section
    at = (section.kerb + section.parking) / 2 if section.parking > section.kerb + 1 else section.kerb + 0.85
    s = rng.uniform(0, 10)
    wrong_way = rng.uniform(0, 0.3)
    while s < plot.length:
        length = 5.0
        spot, heading = plot.road.at(s, side * (at + rng.uniform(-0.1, 0.1)))
        if rng.random() < share and not plot.crossed(spot):
            turned = float(heading) + (0 if (side < 0) != (rng.random() < wrong_way) else np.pi) + rng.normal(0, 0.02)
            shapes, length = vehicle(rng, spot, turned, large=0.04)
            plot.add(spot, shapes)
            s += length / 2  # room for a long one
        s += length / 2 + 2.6 + rng.uniform(0.3, 2.5)


def _poles(plot: _Plot, side: int, away: float, step: tuple[float, float]) -> None:
    """Lamps and signs."""
    rng = plot.rng
    s = rng.uniform(0, 15)
    while s < plot.length:
        spot, heading = plot.road.at(s, side * away)
        if plot.ground.take(spot, 0.3, away - 0.05):
            sign, posts = pole(rng, spot, float(heading) + (0 if side < 0 else np.pi))
            plot.add(spot, sign, follow=False)
            plot.add_round(posts)
        s += rng.uniform(*step)


def _barriers(plot: _Plot, side: int, kind: str) -> None:
    """Guard rails, noise barriers, fences or hedges along a road outside towns, in stretches."""
    rng, pavement = plot.rng, plot.road.section.pavement
    styles = {
        "rail": ((0.45, 0.78), 0.12, 0.2, "rail", random_colour(rng, 0.6, 0.2)),
        "concrete": ((-0.5, 0.85), 0.4, 0.2, "concrete", random_colour(rng, 0.6, 0.2)),
        "noise": ((-0.5, rng.uniform(2.2, 4.5)), 0.3, 3.0, "concrete", random_colour(rng, 0.55, 0.4, 0.1, 0.3)),
        "fence": ((-0.5, rng.uniform(0.9, 1.5)), 0.1, 4.0, "fence", random_colour(rng, 0.5, 0.4, 0.1)),
        "hedge": ((-0.5, rng.uniform(0.8, 2.5)), 1.2, 2.5, "leaves", _green(rng)),
    }
    names = ["rail", "rail", "noise", "concrete", "fence"] if kind == "motorway" else ["rail", "hedge", "fence", "none"]
    s, step = 0.0, 8.0
    while s < plot.length:
        style, end = str(rng.choice([*names, "none"])), s + rng.uniform(30, 150)
        while s < end and s < plot.length:
            if style != "none" and not plot.crossed(plot.road.at(s + step / 2, side * pavement)[0]):
                (bottom, top), thick, away, texture, paint = styles[style]
                middle, heading = plot.road.at(s + step / 2, side * (pavement + away))
                tile = (2.0, top - bottom) if texture in ("rail", "fence") else (4.0, 4.0)
                shapes = box(middle, float(heading), step * 1.03, thick, bottom, top, texture, texture, paint, tile)
                plot.add(middle, shapes)
                if style == "rail":  # a post
                    plot.add_round(
                        [
                            Quadric(
                                np.array([*middle, 0.0]),
                                np.array([0.07, 0.07, np.inf]),
                                -0.5,
                                0.6,
                                "metal",
                                64.0,
                                paint,
                            )
                        ]
                    )
            s += step


def _median(plot: _Plot, variation: Variation) -> None:
    """A guard rail, a concrete wall, a hedge or trees between the directions."""
    rng = plot.rng
    style = str(rng.choice(["rail", "concrete", "hedge", "trees", "none"], p=[0.3, 0.2, 0.2, 0.2, 0.1]))
    if variation.kind == "motorway" and style in ("trees", "none"):
        style = "rail"
    paint = _green(rng) if style == "hedge" else random_colour(rng, 0.6, 0.2)
    texture = {"hedge": "leaves"}.get(style, style)
    bottom, top, thick = {"rail": (0.45, 0.78, 0.3), "concrete": (-0.5, 0.9, 0.4)}.get(style, (-0.5, 1.0, 0.9))
    for s in np.arange(4.0, plot.length, 8.0):
        middle, heading = plot.road.at(s, 0.0)
        if plot.crossed(middle):
            continue
        if style == "trees":
            if rng.random() < 0.6:
                plot.add_round(tree(rng, middle))
        elif style != "none":
            tile = (2.0, top - bottom) if style == "rail" else (4.0, 4.0)
            shapes = box(middle, float(heading), 8.25, thick, bottom, top, texture, texture, paint, tile)
            plot.add(middle, shapes)


def _bridges(plot: _Plot, variation: Variation) -> None:
    """Bridges over the road, on piers beside it."""
    rng, pavement = plot.rng, plot.road.section.pavement
    s = rng.uniform(30, 150)
    while s < plot.length:
        middle, heading = plot.road.at(s, 0.0)
        turned = float(heading) + rng.uniform(-0.5, 0.5)
        depth, span = rng.uniform(6, 16), rng.uniform(50, 110)
        low, thick = rng.uniform(4.8, 6.5), rng.uniform(0.8, 1.6)
        paint = random_colour(rng, rng.choice([0.35, 0.6]), 0.25, 0.05)
        forward, left = axes(turned)
        top, tile = low + thick, (8.0, 8.0)
        shapes = box(middle, turned, depth, span, low, top, "concrete", "concrete", paint, tile)
        corner = np.array([*middle, low]) - forward * depth / 2 + left * span / 2  # `box` has no lower face
        shapes.append(rectangle(corner, forward, -left, depth, span, "concrete", paint * 0.7, tile))
        for end in (1, -1):  # railings
            spot = np.asarray(middle) + end * forward[:2] * (depth / 2 - 0.2)
            shapes += box(spot, turned, 0.1, span, top, top + 1.1, "fence", "metal", paint, (2.0, 1.1))
        for away in (pavement + 1.5, -pavement - 1.5, 0.0):
            if away == 0.0 and variation.layout.median < 1.5:
                continue
            spot, _ = plot.road.at(s, away)
            wide = rng.uniform(0.6, 1.0)
            shapes += box(spot, turned, depth * 0.7, wide, -2, low, "concrete", "concrete", paint, (4.0, 4.0))
            plot.ground.take(spot, depth / 2, 0.0)
        plot.add(middle, shapes, follow=False)
        s += rng.uniform(60, 300)


def _boards(plot: _Plot, side: int, step: tuple[float, float]) -> None:
    """Large signs on posts, and advertising."""
    rng, pavement = plot.rng, plot.road.section.pavement
    s = rng.uniform(0.3, 1) * step[1]
    while s < plot.length:
        away = pavement + rng.uniform(2.5, 6)
        spot, heading = plot.road.at(s, side * away)
        width, height, foot = rng.uniform(2, 5), rng.uniform(1.2, 3), rng.uniform(1.5, 4)
        if plot.ground.take(spot, width / 2, pavement + 0.5 + width / 2):
            turned = float(heading) + rng.uniform(-0.25, 0.25)
            colour = np.array(
                [(0.1, 0.2, 0.55), (0.08, 0.35, 0.15), (0.9, 0.9, 0.85), (0.7, 0.5, 0.1)][rng.integers(4)]
            )
            board = box(spot, turned, 0.15, width, foot, foot + height, "board", "metal", colour)
            plot.add(spot, board, follow=False)
            _, left = axes(turned)
            for end in (-0.4, 0.4):
                root = np.array([*(spot + left[:2] * end * width), 0.0])
                radius = np.array([0.09, 0.09, np.inf])
                plot.add_round([Quadric(root, radius, -1.0, foot + 0.1, "metal", 64.0, np.full(3, 0.4))])
        s += rng.uniform(*step)


def _farms(plot: _Plot, side: int, step: tuple[float, float]) -> None:
    """Single buildings away from the road."""
    rng, pavement = plot.rng, plot.road.section.pavement
    s = rng.uniform(0, step[1])
    while s < plot.length:
        away = pavement + rng.uniform(8, 45)
        spot, heading = plot.road.at(s, side * away)
        if plot.ground.take(spot, 8.0, pavement + 9):
            turned = float(heading) + rng.uniform(-1, 1)
            house = building(rng, spot, turned, rng.uniform(8, 20), rng.uniform(7, 12), int(rng.integers(1, 3)))
            plot.add(spot, house, follow=False)
        s += rng.uniform(*step)


def _blocks_behind(plot: _Plot, side: int) -> None:
    """A second row of buildings."""
    rng, pavement = plot.rng, plot.road.section.pavement
    s = rng.uniform(0, 20)
    while s < plot.length:
        spot, heading = plot.road.at(s, side * (pavement + rng.uniform(24, 38)))
        if rng.random() < 0.6 and plot.ground.take(spot, 8.0, pavement + 18):
            turned = float(heading) + rng.choice([0.0, np.pi / 2])
            house = building(rng, spot, turned, rng.uniform(9, 16), 9.0, int(rng.integers(1, 5)))
            plot.add(spot, house, follow=False)
        s += rng.uniform(14, 30)


def _woods(plot: _Plot, side: int, kind: str) -> None:
    """Woods and hills that close the view, or an open horizon."""
    rng, pavement = plot.rng, plot.road.section.pavement
    density = rng.choice([0.1, 0.5, 0.95]) if kind in ("country", "motorway") else 0.8
    nearest = pavement + (rng.uniform(12, 60) if kind in ("country", "motorway") else 45)
    s = 0.0
    while s < plot.length:
        away = nearest + rng.uniform(0, 25)
        spot, _ = plot.road.at(s, side * away)
        wide, high = rng.uniform(4, 9), rng.uniform(3, 7)
        if rng.random() < density and plot.ground.distance_to_road(spot) > nearest - 1:
            centre = np.array([*spot, high * rng.uniform(0.3, 0.9)])
            leaves = str(rng.choice(["leaves", "leaves_1", "leaves_2"]))
            size = np.array([wide, wide * rng.uniform(0.8, 1.2), high])
            plot.add_round([Quadric(centre, size, -np.inf, np.inf, leaves, SIZE / 6.0, _green(rng) * 0.8)])
        s += rng.uniform(4, 9)
    for s in np.arange(rng.uniform(0, 80), plot.length, 90.0):  # hills
        if rng.random() < 0.5:
            spot, _ = plot.road.at(s, side * rng.uniform(130, 190))
            size = np.array([rng.uniform(40, 80), rng.uniform(40, 80), rng.uniform(6, 22)])
            if plot.ground.distance_to_road(spot) > size[:2].max() + 25:
                hill = Quadric(
                    np.array([*spot, 0.0]), size, -np.inf, np.inf, "leaves_2", SIZE / 20.0, _green(rng) * 0.7
                )
                plot.add_round([hill])
