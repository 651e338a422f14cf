"""The textures of one drive of a varied world: other roads, facades, leaves and vehicles than the plain world's.

Same form as `textures.py`: a colour of its own and a share of the surface's paint.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from datasets.synthetic import textures as plain
from datasets.synthetic.textures import ALL_NAMES, SIZE, cover, noise, paint_only, uv
from datasets.synthetic.variation import Variation

_FALLOFFS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)  # few, because each one's noise field is computed once and kept


def make_varied_textures(rng: np.random.Generator, variation: Variation) -> np.ndarray:
    """The textures of one drive, in the order of `ALL_NAMES`: float32 [len(ALL_NAMES), SIZE, SIZE, 4]."""
    made = []
    for name in ALL_NAMES:
        if name == "road":
            texture = _road(rng, variation)
        elif name == "side_road":
            texture = _road(rng, dataclasses.replace(variation, layout=variation.side_layout))
        elif name == "clouds":
            texture = _clouds(rng, variation.cloud_cover)
        else:
            texture = _MAKERS[name](rng)
        made.append(texture.astype(np.float32))
    return np.stack(made)


def _grain(rng: np.random.Generator, amplitude: float) -> np.ndarray:
    """Noise [SIZE, SIZE] of a random spectrum and about this amplitude."""
    first, second = rng.choice(_FALLOFFS, 2)
    mixed = noise(rng, float(first)) + rng.uniform(0, 1) * noise(rng, float(second))
    return amplitude * rng.uniform(0.4, 1.6) * mixed


def _facade(rng: np.random.Generator) -> np.ndarray:
    """Rows of windows, sometimes with balconies, shop windows or few openings, on plaster, bricks, boards or slabs."""
    u, v = uv()
    lightness = 0.85 + _grain(rng, 0.05)
    style = rng.random()
    if style < 0.25:  # bricks
        rows, columns = int(rng.integers(24, 44)), int(rng.integers(10, 20))
        course = np.floor(v * rows)
        shifted = u * columns + 0.5 * (course % 2)
        stone = rng.uniform(0.8, 1.15, (rows, columns))
        lightness *= stone[course.astype(int), np.floor(shifted).astype(int) % columns]
        joint = ((v * rows) % 1 < 0.16) | (shifted % 1 < 0.1)
        lightness = np.where(joint, lightness * rng.choice([0.7, 1.25]), lightness)
    elif style < 0.4:  # boards or slabs
        across = v if rng.random() < 0.6 else u
        count = int(rng.integers(6, 32))
        lightness *= np.where((across * count) % 1 < 0.1, rng.uniform(0.6, 0.9), 1.0)
    lightness *= 1 - rng.uniform(0, 0.25) * np.exp(-(v % 1) / 0.08)  # dirt at the foot
    texture = paint_only(lightness)
    columns = int(rng.choice([1, 2, 2, 3, 4]))
    width, height = rng.uniform(0.3, 0.7) / columns, rng.uniform(0.18, 0.34)
    frame = rng.uniform(0.006, 0.02)
    shutters = rng.uniform(0.1, 0.7) * rng.uniform(0.5, 1, 3) if rng.random() < 0.3 else None
    frame_colour = rng.choice([0.9, 0.55, 0.2]) * np.array([1, 0.97, 0.92])
    shine_noise = 0.3 * noise(rng, 1.2)
    for column in (np.arange(columns) + 0.5) / columns:
        for row in (0.27, 0.77):
            if rng.random() < 0.12:
                continue
            du, dv = np.abs(u - column), np.abs(v - row)
            cover(texture, (du < width / 2 + frame) & (dv < height / 2 + frame), frame_colour)
            glass = (du < width / 2) & (dv < height / 2) & (du > frame / 3)
            tone = rng.choice([0.05, 0.15, 0.35, 0.6]) * rng.uniform(0.7, 1.3) * np.array([0.9, 1, 1.1])
            shine = 1 + 0.4 * ((v - row) / height) + shine_noise
            cover(texture, glass, np.clip(tone * shine[..., None], 0, 1))
            blind = glass & (v > row + height * rng.uniform(-0.5, 0.5)) & (rng.random() < 0.3)
            cover(texture, blind, rng.uniform(0.5, 0.9) * np.ones(3))
            if shutters is not None:
                wing = (np.abs(du - width / 2 - frame - 0.03) < 0.03) & (dv < height / 2 + frame)
                cover(texture, wing, shutters)
    if rng.random() < 0.25:  # balconies
        balcony = (np.abs(v % 0.5 - rng.uniform(0.05, 0.12)) < 0.05) & (np.abs(u - 0.5) < rng.uniform(0.15, 0.5))
        cover(texture, balcony, rng.choice([0.25, 0.6, 0.85]) * (0.8 + 0.2 * ((u * 40) % 1 < 0.5))[..., None])
    return texture


def _road(rng: np.random.Generator, variation: Variation) -> np.ndarray:
    """The cross-section of the drive's road: u along it (`period`), v across it from right to left (2 `textured`)."""
    layout, section = variation.layout, variation.layout.section
    u, v = uv()
    along, across = u * section.period, (v - 0.5) * 2 * section.textured
    side = np.abs(across)
    grain, stains = _grain(rng, 0.03), noise(rng, float(rng.choice([1.0, 1.2, 1.5])))
    tone = rng.uniform(0.17, 0.38) + rng.uniform(0.01, 0.05) * stains + grain
    for lane in range(layout.lanes):  # tyre tracks
        for wheel in (-0.8, 0.8):
            track = np.exp(-(((side - layout.middle_of(lane) - wheel) / 0.3) ** 2))
            tone = tone * (1 + rng.uniform(-0.15, 0.06) * track)
    for _ in range(int(rng.integers(0, 6))):  # repaired patches
        where = (np.abs(along - rng.uniform(0, section.period)) < rng.uniform(0.3, 2)) & (
            np.abs(across - rng.uniform(-1, 1) * section.asphalt) < rng.uniform(0.3, 1.2)
        )
        tone = np.where(where, tone * rng.choice([0.65, 0.8, 1.2]), tone)
    for _ in range(int(rng.integers(0, 5))):  # cracks and joints, darker or sealed with tar
        wave = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * (u * rng.integers(1, 4) + rng.random()))
        wave = wave + 0.12 * noise(rng, 1.2)
        where = np.abs(across - rng.uniform(-1, 1) * section.asphalt - wave) < rng.uniform(0.03, 0.08)
        tone = np.where(where, tone * rng.uniform(0.45, 0.8), tone)
    if rng.random() < 0.3:  # a joint across the road
        tone = np.where(np.abs(along - rng.uniform(0.5, 5)) < 0.06, tone * 0.6, tone)
    tone = tone[..., None] * (1 + rng.uniform(-0.04, 0.04, 3))
    tone = np.where(_markings(rng, variation, along, side)[..., None], _white(rng, grain), tone)
    tone = _beside_the_asphalt(rng, variation, along, side, tone, grain, stains)
    return np.concatenate([np.clip(tone, 0, 1.2), np.zeros((SIZE, SIZE, 1))], -1)


def _white(rng: np.random.Generator, grain: np.ndarray) -> np.ndarray:
    worn = rng.uniform(0.55, 0.95) + rng.uniform(0, 2) * grain
    yellow = (1, 0.8, 0.35) if rng.random() < 0.08 else (1, 1, 0.97)
    return np.clip(worn, 0, 1)[..., None] * np.array(yellow)


def _markings(rng: np.random.Generator, variation: Variation, along: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Where the road is painted: lane lines, edges, the middle. bool [SIZE, SIZE]."""
    layout, period = variation.layout, variation.layout.section.period
    half = max(rng.uniform(0.06, 0.1), 0.6 * layout.section.textured * 2 / SIZE)  # no thinner than a texel
    gap = period / 3 if period > 15 else period / rng.choice([1, 2])
    dashed = along % gap < gap * rng.uniform(0.35, 0.6)
    marks = np.zeros_like(side, bool)
    for lane in range(1, layout.lanes):
        marks |= (np.abs(side - layout.median / 2 - lane * layout.lane_width) < half) & dashed
    bare = variation.kind in ("town", "suburb") and rng.random() < 0.45
    if layout.median:
        marks |= np.abs(side - layout.median / 2 - 0.15) < half
    elif not bare:
        marks |= (side < half) & (dashed if rng.random() < 0.7 else True)
    if not bare and (layout.shoulder > 0.15 or rng.random() < 0.5):
        marks |= np.abs(side - layout.lanes_end + 0.05) < half
    return marks


def _beside_the_asphalt(
    rng: np.random.Generator,
    variation: Variation,
    along: np.ndarray,
    side: np.ndarray,
    tone: np.ndarray,
    grain: np.ndarray,
    stains: np.ndarray,
) -> np.ndarray:
    """The road's colours with its median, kerb, parking strip, pavement and verge."""
    layout, section = variation.layout, variation.layout.section
    green = np.array([0.25, 0.35, 0.14]) if rng.random() < 0.7 else np.array([0.5, 0.43, 0.26])
    verge = np.clip(rng.uniform(0.7, 1.2) * (1 + 4 * grain + 0.12 * stains), 0.2, 2)[..., None] * green
    if layout.median > 0.5:
        paved = variation.kind == "motorway" and rng.random() < 0.5
        middle = (0.42 + 2 * grain)[..., None] * np.ones(3) if paved else verge
        tone = np.where((side < layout.median / 2)[..., None], middle, tone)
    kerb = rng.uniform(0.4, 0.75) * np.where(along % 1 < 0.06, 0.7, 1) + grain
    tone = np.where((side > section.asphalt)[..., None], kerb[..., None] * np.array([1, 0.98, 0.95]), tone)
    parking = rng.uniform(0.25, 0.5) + grain + 0.04 * stains
    if rng.random() < 0.5:  # cobbles
        parking = parking * np.where((along * 2 % 1 < 0.12) | ((side * 2) % 1 < 0.12), 0.7, 1)
    bays = (along % 6 < 0.12) & (rng.random() < 0.4)
    parking = np.where(bays, 0.85, parking)
    tone = np.where((side > section.kerb)[..., None], parking[..., None] * np.array([1, 0.96, 0.92]), tone)
    if variation.kind in ("country", "motorway"):
        gravel = (rng.uniform(0.35, 0.55) + 1.5 * grain)[..., None] * np.array([1, 0.95, 0.85])
        pavement = gravel if rng.random() < 0.6 else verge
    else:
        size = rng.choice([0.3, 0.5, 0.75, 1.5])
        slabs = (along % size < 0.05) | ((side - section.parking) % size < 0.05)
        pavement = (rng.uniform(0.35, 0.65) + grain + 0.03 * stains) * np.where(slabs, rng.uniform(0.7, 1), 1)
        pavement = pavement[..., None] * (1 + rng.uniform(-0.06, 0.06, 3))
    tone = np.where((side > section.parking)[..., None], pavement, tone)
    return np.where((side > section.pavement)[..., None], verge, tone)


def _grass(rng: np.random.Generator) -> np.ndarray:
    """Lawn, meadow, dry grass or bare field."""
    green = np.array([0.2, 0.31, 0.1]) * rng.uniform(0.6, 1.4)
    dry = np.array([0.5, 0.43, 0.24]) * rng.uniform(0.7, 1.3)
    mix = np.clip(rng.choice([0.15, 0.35, 0.8]) + 0.3 * noise(rng, 1.2), 0, 1)[..., None]
    texture = np.zeros((SIZE, SIZE, 4))
    blades = np.clip(1 + _grain(rng, 0.2) + 0.1 * noise(rng, 0.8), 0.2, 2)
    texture[..., :3] = (green * (1 - mix) + dry * mix) * blades[..., None]
    return texture


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Foliage with dark gaps between the leaves."""
    clumps, fine = noise(rng, float(rng.choice([0.6, 0.8, 1.0]))), noise(rng, float(rng.choice([0.2, 0.4])))
    lightness = 0.62 + rng.uniform(0.15, 0.3) * clumps + rng.uniform(0.12, 0.25) * fine
    gaps = noise(rng, 0.8) > rng.uniform(0.8, 1.6)
    return paint_only(np.where(gaps, 0.2 * lightness, lightness))


def _car_rear(rng: np.random.Generator) -> np.ndarray:
    """The rear of a car below its window: boot lid, red lamps, number plate, bumper, wheels and the dark below."""
    u, v = uv()
    texture = paint_only(0.7 + 0.25 * v + 0.03 * noise(rng, 1.0))
    across = np.abs(u - 0.5)
    low = rng.uniform(0.2, 0.3)
    cover(texture, v < low, (0.03, 0.03, 0.035))
    cover(texture, (v < low) & (across > 0.36) & (across < 0.48), (0.012, 0.012, 0.012))
    texture[(np.abs(v - rng.uniform(0.42, 0.5)) < 0.008)] *= 0.4  # the edge of the boot lid
    plate = rng.uniform(0.36, 0.62)
    cover(texture, (across < 0.16) & (np.abs(v - plate) < 0.055), (0.9, 0.9, 0.86))
    cover(texture, (across < 0.13) & (np.abs(v - plate) < 0.028), (0.3, 0.3, 0.34))
    bright = rng.choice([0.45, 0.8])
    width, height = rng.uniform(0.05, 0.1), rng.uniform(0.08, 0.22)
    lamp = (np.abs(across - (0.49 - width)) < width) & (np.abs(v - rng.uniform(0.68, 0.8)) < height)
    cover(texture, lamp, np.array([bright, 0.06, 0.05]))
    cover(texture, lamp & (np.abs(v - 0.74) < 0.03), (0.85, 0.6, 0.5))
    return texture


def _car_front(rng: np.random.Generator) -> np.ndarray:
    """The front of a car: grille, white lamps, number plate."""
    u, v = uv()
    texture = paint_only(0.65 + 0.3 * v + 0.03 * noise(rng, 1.0))
    across = np.abs(u - 0.5)
    cover(texture, v < 0.24, (0.03, 0.03, 0.035))
    cover(texture, (v < 0.24) & (across > 0.36) & (across < 0.48), (0.012, 0.012, 0.012))
    grille = (across < rng.uniform(0.15, 0.3)) & (np.abs(v - 0.66) < rng.uniform(0.06, 0.14))
    cover(texture, grille, np.array([0.06, 0.06, 0.065]))
    cover(texture, (across < 0.16) & (np.abs(v - 0.42) < 0.055), (0.88, 0.88, 0.85))
    cover(texture, (np.abs(across - 0.39) < 0.09) & (np.abs(v - 0.74) < 0.1), (0.85, 0.87, 0.9))
    return texture


def _car_side(rng: np.random.Generator) -> np.ndarray:
    """The side of a car below its windows: u along the car, v upwards."""
    u, v = uv()
    texture = paint_only(0.62 + 0.35 * v + 0.03 * noise(rng, 1.0))
    cover(texture, v < 0.2, (0.03, 0.03, 0.03))
    for hub in (0.19, 0.8):
        radius = np.hypot((u - hub) * 4.3, (v - 0.33) * 0.95)
        cover(texture, radius < 0.4, (0.02, 0.02, 0.02))
        cover(texture, radius < 0.22, rng.choice([0.25, 0.55, 0.7]) * np.ones(3))
        cover(texture, radius < 0.06, (0.1, 0.1, 0.1))
    doors = (np.abs(u - 0.37) < 0.005) | (np.abs(u - 0.6) < 0.005)
    texture[doors & (v > 0.25)] *= 0.35
    texture[np.abs(v - 0.62) < 0.02] *= 1.15
    return texture


def _car_glass(rng: np.random.Generator) -> np.ndarray:
    """Windows in a frame of painted metal, with what they mirror."""
    u, v = uv()
    texture = paint_only(0.9 + 0.03 * noise(rng, 1.0))
    mirrored = np.clip(rng.uniform(0.03, 0.2) + 0.2 * v + rng.uniform(0, 0.06) * noise(rng, 1.2), 0.02, 0.7)
    pillar = (np.abs(u - 0.45) > 0.012) if rng.random() < 0.5 else True
    glass = (np.abs(u - 0.5) < 0.46) & (np.abs(v - 0.48) < 0.42) & pillar
    cover(texture, glass, mirrored[..., None] * np.array([0.92, 1, 1.08]))
    seats = (np.abs(np.abs(u - 0.5) - 0.22) < 0.09) & (v < 0.5) & glass
    cover(texture, seats, (0.05, 0.05, 0.055))
    return texture


def _lorry_side(rng: np.random.Generator) -> np.ndarray:
    """The painted side of a lorry: ribs, a stripe, something like writing."""
    u, v = uv()
    lightness = 0.85 + 0.03 * noise(rng, 1.0) + 0.08 * v
    ribs = int(rng.integers(4, 24))
    texture = paint_only(lightness * np.where((u * ribs) % 1 < 0.1, 0.82, 1.0))
    if rng.random() < 0.6:
        cover(texture, np.abs(v - rng.uniform(0.2, 0.8)) < rng.uniform(0.03, 0.12), rng.uniform(0, 0.9, 3))
    if rng.random() < 0.7:
        letters = rng.random(24) < 0.7
        begin, size = rng.uniform(0.1, 0.4), rng.uniform(0.05, 0.12)
        inside = (u > begin) & (u < begin + 0.45) & (np.abs(v - rng.uniform(0.4, 0.7)) < size)
        where = inside & letters[np.floor(u * 48).astype(int) % 24] & (noise(rng, 0.8) > -0.9)
        cover(texture, where, rng.choice([0.08, 0.95]) * rng.uniform(0.5, 1, 3))
    cover(texture, (v < 0.05) | (v > 0.97), (0.3, 0.3, 0.3))
    return texture


def _lorry_rear(rng: np.random.Generator) -> np.ndarray:
    """Doors, a warning stripe, red lamps and the dark below."""
    u, v = uv()
    texture = paint_only(0.8 + 0.04 * noise(rng, 1.0))
    texture[(np.abs(u - 0.5) < 0.01) | (np.abs(u - 0.5) > 0.47)] *= 0.5
    cover(texture, v < 0.16, (0.05, 0.05, 0.05))
    if rng.random() < 0.6:
        stripe = np.where(((u * 10 + v * 4) % 1 < 0.5)[..., None], (0.85, 0.12, 0.08), (0.95, 0.85, 0.2))
        cover(texture, np.abs(v - 0.22) < 0.05, stripe)
    cover(texture, (np.abs(np.abs(u - 0.5) - 0.4) < 0.06) & (np.abs(v - 0.12) < 0.03), (0.7, 0.08, 0.05))
    cover(texture, (np.abs(u - 0.5) < 0.1) & (np.abs(v - 0.11) < 0.025), (0.85, 0.85, 0.8))
    return texture


def _chassis(rng: np.random.Generator) -> np.ndarray:
    """Two wheels, tanks and shadows below a lorry, per 4.8 m."""
    u, v = uv()
    texture = paint_only(np.where(v > 0.8, 0.8, 0.12) + 0.03 * noise(rng, 0.8))
    for hub in (0.25, 0.55):
        radius = np.hypot((u - hub) * 4.8, (v - 0.45) * 1.1)
        cover(texture, radius < 0.52, (0.025, 0.025, 0.025))
        cover(texture, radius < 0.26, rng.choice([0.3, 0.6]) * np.ones(3))
    cover(texture, (np.abs(u - 0.83) < 0.1) & (np.abs(v - 0.5) < 0.25), (0.35, 0.35, 0.36))
    return texture


def _bus_side(rng: np.random.Generator) -> np.ndarray:
    u, v = uv()
    texture = paint_only(0.85 + 0.03 * noise(rng, 1.0))
    windows = (np.abs(v - 0.66) < 0.2) & ((u * 6) % 1 > 0.08)
    cover(
        texture,
        windows,
        np.clip(0.12 + 0.05 * noise(rng, 1.2) + 0.1 * v, 0.02, 0.6)[..., None] * np.array([0.92, 1, 1.08]),
    )
    cover(texture, v < 0.14, (0.03, 0.03, 0.03))
    for hub in (0.2, 0.78):
        cover(texture, np.hypot((u - hub) * 9, (v - 0.15) * 3) < 0.5, (0.02, 0.02, 0.02))
    cover(texture, np.abs(v - 0.36) < 0.04, rng.uniform(0, 0.9, 3))
    return texture


def _rail(rng: np.random.Generator) -> np.ndarray:
    """A guard rail's bar: bright edges, a dark groove. v upwards."""
    _, v = uv()
    profile = 0.75 + 0.3 * np.cos(4 * np.pi * v)
    return paint_only(np.clip(profile, 0.3, 1.1) + 0.05 * noise(rng, 1.0))


def _concrete(rng: np.random.Generator) -> np.ndarray:
    """Concrete slabs with stains that run down."""
    u, v = uv()
    streaks = np.broadcast_to(noise(rng, 0.8).mean(0), (SIZE, SIZE))
    lightness = 0.8 + _grain(rng, 0.05) + 0.2 * streaks * v
    return paint_only(np.where((u * 2) % 1 < 0.02, 0.55, lightness))


def _board(rng: np.random.Generator) -> np.ndarray:
    """A large sign: a field of paint, a white border, blocks of writing."""
    u, v = uv()
    texture = paint_only(np.full((SIZE, SIZE), 0.95))
    cover(texture, (np.abs(u - 0.5) > 0.48) | (np.abs(v - 0.5) > 0.46), (0.9, 0.9, 0.9))
    for row in (0.28, 0.52, 0.76):
        words = rng.random(12) < 0.65
        where = (np.abs(v - row) < 0.07) & (np.abs(u - 0.5) < 0.42) & words[np.floor(u * 12).astype(int)]
        cover(texture, where & ((u * 48) % 1 < 0.7), (0.92, 0.92, 0.92))
    return texture


def _clouds(rng: np.random.Generator, amount: float) -> np.ndarray:
    """Clouds over the blue of the sky, which is the paint; `amount` 0 is a clear sky, 1 an overcast one."""
    shape = noise(rng, float(rng.choice([1.2, 1.5, 1.8])))
    density = np.clip((shape - (1 - 2 * amount)) * rng.uniform(0.4, 1.2), 0, 1)[..., None]
    density = np.clip(density + max(0.0, amount - 0.9) * 10, 0, 1)
    shade = np.clip(0.97 + rng.uniform(0.02, 0.09) * noise(rng, 1.2), 0, 1.1)[..., None]
    return np.concatenate([density * shade * np.array([1, 1, 1.01]), 1 - density], -1)


_MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    **plain.MAKERS,
    **dict.fromkeys([name for name in ALL_NAMES if name.startswith("facade")], _facade),
    **dict.fromkeys([name for name in ALL_NAMES if name.startswith("leaves")], _leaves),
    "grass": _grass,
    "car_side": _car_side,
    "car_front": _car_front,
    "car_rear": _car_rear,
    "car_glass": _car_glass,
    "lorry_side": _lorry_side,
    "lorry_rear": _lorry_rear,
    "chassis": _chassis,
    "bus_side": _bus_side,
    "rail": _rail,
    "concrete": _concrete,
    "board": _board,
}
