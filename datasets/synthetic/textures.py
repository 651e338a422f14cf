"""The procedural textures of the synthetic world.

A texture is float32 [SIZE, SIZE, 4] and repeats in both directions. It holds a colour of its own (red, green, blue) and
a share of the surface's paint: `colour = texture[:3] + texture[3] * paint`. One facade thus serves houses of all
colours. The mixture is linear, so filtering the texture (`rip_map.py`) filters the colours.
"""

import functools
from collections.abc import Callable

import numpy as np

from datasets.synthetic.road import ASPHALT_END, KERB_END, PARKING_END, PAVEMENT_END

SIZE = 256  # texels along each side
ROAD_WIDTH = 16.0  # metres across the road that its texture covers, kerbs and pavements included
ROAD_PERIOD = 12.0  # metres along the road after which its texture repeats


@functools.cache
def _noise_field(falloff: float) -> np.ndarray:
    """Periodic noise [SIZE, SIZE] with mean 0, standard deviation 1 and an amplitude of 1 / frequency^falloff.

    A falloff of 0 gives white noise, one of 1 that of natural images.
    """
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    frequency[0, 0] = np.inf
    white = np.random.default_rng(int(1000 * falloff)).standard_normal((SIZE, SIZE))
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency**falloff, (SIZE, SIZE))
    return field / field.std()


def noise(rng: np.random.Generator, falloff: float) -> np.ndarray:
    """The noise field of this falloff, shifted and mirrored at random (a new field would take ten times longer)."""
    field = _noise_field(falloff)[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    return np.roll(field.T if rng.random() < 0.5 else field, rng.integers(SIZE, size=2), (0, 1))


def make_textures(rng: np.random.Generator) -> np.ndarray:
    """The textures of one drive, in the order of `NAMES`: float32 [len(NAMES), SIZE, SIZE, 4]."""
    return np.stack([MAKERS[name](rng).astype(np.float32) for name in NAMES])


def paint_only(lightness: np.ndarray) -> np.ndarray:
    """A texture of paint alone with this lightness [SIZE, SIZE]."""
    return np.concatenate([np.zeros((SIZE, SIZE, 3)), np.clip(lightness, 0, 1.6)[..., None]], -1)


def cover(texture: np.ndarray, where: np.ndarray, colour) -> None:
    """Overwrite the texture with an opaque colour ([3] or [SIZE, SIZE, 3]) where the mask is set, in place."""
    opaque = np.broadcast_to(np.asarray(colour, float), (SIZE, SIZE, 3))
    texture[where] = np.concatenate([opaque, np.zeros((SIZE, SIZE, 1))], -1)[where]


def uv() -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates in [0, 1) of the texel centres, each [SIZE, SIZE]: u along the columns, v along the rows."""
    centres = (np.arange(SIZE) + 0.5) / SIZE
    return np.broadcast_to(centres[None], (SIZE, SIZE)), np.broadcast_to(centres[:, None], (SIZE, SIZE))


def _facade(rng: np.random.Generator) -> np.ndarray:
    """Two by two windows on plaster or bricks. The texture is about 6 m wide and two storeys high, v upwards."""
    u, v = uv()
    lightness = 0.8 + 0.1 * noise(rng, 1.2) + 0.05 * noise(rng, 0.3)
    if rng.random() < 0.4:  # bricks: 32 courses per texture, joints lighter or darker than the bricks
        course = np.floor(v * 32)
        joint = ((v * 32) % 1 < 0.16) | ((u * 16 + 0.5 * (course % 2)) % 1 < 0.1)
        stone = rng.uniform(0.75, 1.2, (32, 16))
        lightness = lightness * stone[course.astype(int), np.floor(u * 16 + 0.5 * (course % 2)).astype(int) % 16]
        lightness = np.where(joint, rng.choice([0.5, 1.25]), lightness)
    texture = paint_only(lightness)
    width, height, frame = rng.uniform(0.16, 0.24), rng.uniform(0.2, 0.3), 0.018
    shutters = rng.uniform(0.15, 0.6) * rng.uniform(0.5, 1, 3) if rng.random() < 0.4 else None
    frame_colour = rng.choice([0.85, 0.25]) * np.array([1, 0.97, 0.92])
    for column in (0.25, 0.75):
        for row in (0.27, 0.77):
            du, dv = np.abs(u - column), np.abs(v - row)
            cover(texture, (du < width / 2 + frame) & (dv < height / 2 + frame), frame_colour)
            glass = (du < width / 2) & (dv < height / 2) & (du > frame / 3)
            tone = rng.uniform(0.08, 0.4) * np.array([0.85, 1, 1.15])  # a curtain or a dark room
            shine = 1 + 0.5 * ((v - row) / height) + 0.12 * noise(rng, 1.2)
            cover(texture, glass, np.clip(tone * shine[..., None], 0, 1))
            if shutters is not None:
                wing = (np.abs(du - width / 2 - frame - 0.035) < 0.035) & (dv < height / 2 + frame)
                cover(texture, wing, shutters * (0.8 + 0.3 * ((v * 64) % 1 < 0.6))[..., None])
            sill = (du < width / 2 + 2 * frame) & (np.abs(v - (row - height / 2 - frame)) < frame / 2)
            cover(texture, sill, (0.62, 0.6, 0.57))
    band = np.abs(v - 0.5) < 0.008  # a moulding between the storeys
    texture[band] *= 0.6
    return texture


def _roof(rng: np.random.Generator) -> np.ndarray:
    u, v = uv()
    row = (v * 20) % 1
    column = (u * 20 + 0.5 * (np.floor(v * 20) % 2)) % 1
    return paint_only(
        (0.7 + 0.12 * noise(rng, 0.8) + 0.08 * noise(rng, 0.2)) * (0.72 + 0.4 * row) * (1 - 0.3 * (column < 0.12))
    )


def _grass(rng: np.random.Generator) -> np.ndarray:
    patches, blades = noise(rng, 1.2), noise(rng, 0.3)
    texture = np.zeros((SIZE, SIZE, 4))
    green, dry = np.array([0.24, 0.36, 0.13]), np.array([0.46, 0.42, 0.22])
    mix = np.clip(0.35 + 0.3 * patches, 0, 1)[..., None]
    texture[..., :3] = (green * (1 - mix) + dry * mix) * np.clip(1 + 0.25 * blades + 0.12 * noise(rng, 0.8), 0.2, 2)[
        ..., None
    ]
    return texture


def _road(rng: np.random.Generator) -> np.ndarray:
    """Cross-section of the street: u along it (ROAD_PERIOD), v across it from right to left (ROAD_WIDTH)."""
    u, v = uv()
    side = np.abs(v - 0.5) * ROAD_WIDTH
    along, across = u * ROAD_PERIOD, (v - 0.5) * ROAD_WIDTH
    grain, stains = noise(rng, 0.25), noise(rng, 1.2)
    tone = (0.31 + 0.045 * stains + 0.04 * grain)[..., None] * np.array([1, 0.99, 0.98])
    for offset in (-2.6, -1.0, 1.0, 2.6):  # tyre tracks
        tone = tone * (1 - 0.1 * np.exp(-(((across - offset) / 0.3) ** 2)))[..., None]
    for _ in range(3):  # repaired patches
        centre_u, centre_v = rng.uniform(0, ROAD_PERIOD), rng.uniform(-3, 3)
        patch = (np.abs(along - centre_u) < rng.uniform(0.5, 1.6)) & (np.abs(across - centre_v) < rng.uniform(0.4, 0.9))
        tone[patch] *= rng.choice([0.72, 1.22])
    white = np.clip(0.82 + 0.06 * grain, 0, 1)[..., None] * np.array([1, 1, 0.97])
    dashes = (np.abs(across) < 0.08) & ((along % 6) < 3)
    lines = np.abs(side - 3.95) < 0.07
    tone = np.where((dashes | lines)[..., None], white, tone)
    kerb = (0.58 + 0.05 * grain) * np.where((along % 1) < 0.05, 0.6, 1)
    tone = np.where((side > ASPHALT_END)[..., None], kerb[..., None] * np.array([1, 0.98, 0.95]), tone)
    cobbles = ((along * 2) % 1 < 0.12) | ((side * 2 + 0.5) % 1 < 0.12)
    parking = (0.36 + 0.05 * grain + 0.05 * stains) * np.where(cobbles, 0.68, 1)
    tone = np.where((side > KERB_END)[..., None], parking[..., None] * np.array([1, 0.93, 0.87]), tone)
    slabs = (along % 0.75 < 0.06) | ((side - PARKING_END) % 0.7 < 0.06)
    stone = rng.uniform(0.85, 1.1, (16, 32))[(side * 1.43).astype(int) % 16, (along / 0.75).astype(int) % 32]
    pavement = (0.5 + 0.035 * grain + 0.03 * stains) * np.where(slabs, 0.66, stone)
    tone = np.where((side > PARKING_END)[..., None], pavement[..., None] * np.array([1, 0.98, 0.96]), tone)
    soil = np.clip(0.3 + 0.07 * grain + 0.05 * stains, 0, 1)[..., None] * np.array([0.95, 1.05, 0.6])
    tone = np.where((side > PAVEMENT_END)[..., None], soil, tone)
    return np.concatenate([tone, np.zeros((SIZE, SIZE, 1))], -1)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    clumps = noise(rng, 0.9)
    return paint_only(0.62 + 0.24 * clumps + 0.16 * noise(rng, 0.3))


def _bark(rng: np.random.Generator) -> np.ndarray:
    return paint_only(0.75 + 0.12 * noise(rng, 0.9) + 0.1 * noise(rng, 0.2))


def _fence(rng: np.random.Generator) -> np.ndarray:
    """Boards and rails: 16 boards per texture, v upwards; the texture is as high as the fence."""
    u, v = uv()
    board = rng.uniform(0.7, 1.1, 16)[np.floor(u * 16).astype(int)]
    lightness = board * (0.8 + 0.1 * noise(rng, 0.6)) * np.where((u * 16) % 1 < 0.14, 0.4, 1)
    return paint_only(np.where(np.abs(np.abs(v - 0.5) - 0.3) < 0.04, lightness * 1.25, lightness))


def _wall(rng: np.random.Generator) -> np.ndarray:
    u, v = uv()
    course = np.floor(v * 12)
    joint = ((v * 12) % 1 < 0.12) | ((u * 8 + 0.5 * (course % 2)) % 1 < 0.06)
    stone = rng.uniform(0.6, 1.15, (12, 8))[course.astype(int), np.floor(u * 8 + 0.5 * (course % 2)).astype(int) % 8]
    return paint_only(np.where(joint, 0.45, stone * (0.8 + 0.08 * noise(rng, 0.6))))


def _car_side(rng: np.random.Generator) -> np.ndarray:
    """The side of a car below its windows: u along the car, v upwards."""
    u, v = uv()
    texture = paint_only(0.62 + 0.3 * v + 0.03 * noise(rng, 1.0))
    cover(texture, v < 0.2, (0.05, 0.05, 0.05))
    for hub in (0.19, 0.79):
        radius = np.hypot((u - hub) * 4.3, (v - 0.34) * 0.95)
        cover(texture, radius < 0.36, (0.06, 0.06, 0.065))
        cover(texture, radius < 0.2, (0.55, 0.55, 0.57))
        cover(texture, radius < 0.07, (0.2, 0.2, 0.2))
    doors = (np.abs(u - 0.36) < 0.005) | (np.abs(u - 0.58) < 0.005)
    texture[doors & (v > 0.25)] *= 0.35
    for handle in (0.4, 0.62):
        cover(texture, (np.abs(u - handle) < 0.018) & (np.abs(v - 0.82) < 0.02), (0.15, 0.15, 0.15))
    return texture


def _car_end(rng: np.random.Generator) -> np.ndarray:
    """The front or rear of a car: bumper, lamps, number plate."""
    u, v = uv()
    texture = paint_only(0.65 + 0.25 * v + 0.03 * noise(rng, 1.0))
    cover(texture, v < 0.25, (0.06, 0.06, 0.06))
    cover(texture, (np.abs(u - 0.5) < 0.16) & (np.abs(v - 0.42) < 0.06), (0.85, 0.85, 0.8))
    cover(texture, (np.abs(u - 0.5) < 0.13) & (np.abs(v - 0.42) < 0.03), (0.25, 0.25, 0.3))
    lamp = rng.choice(2)
    colour = ((0.62, 0.08, 0.06), (0.85, 0.86, 0.84))[lamp]
    cover(texture, (np.abs(np.abs(u - 0.5) - 0.38) < 0.09) & (np.abs(v - 0.72) < 0.11), colour)
    return texture


def _car_glass(rng: np.random.Generator) -> np.ndarray:
    """Side windows or a windscreen in a frame of painted metal."""
    u, v = uv()
    texture = paint_only(0.9 + 0.03 * noise(rng, 1.0))
    shine = 0.13 + 0.12 * v + 0.1 * (np.abs((u + 0.4 * v) % 0.5 - 0.2) < 0.05)
    glass = (np.abs(u - 0.5) < 0.46) & (np.abs(v - 0.48) < 0.4) & (np.abs(u - 0.5) > 0.012)
    cover(texture, glass, np.clip(shine[..., None] * np.array([0.9, 1, 1.1]), 0, 1))
    return texture


def _metal(rng: np.random.Generator) -> np.ndarray:
    return paint_only(0.85 + 0.06 * noise(rng, 1.0))


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Clouds over the blue of the sky, which is the paint."""
    cover = np.clip(0.5 + 0.5 * noise(rng, 1.8), 0, 1)[..., None] * rng.uniform(0.5, 1.0)
    shade = np.clip(0.93 + 0.04 * noise(rng, 1.2), 0, 1)[..., None]
    return np.concatenate([cover * shade * np.array([1, 1, 1.01]), 1 - cover], -1)


MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "facade_0": _facade,
    "facade_1": _facade,
    "facade_2": _facade,
    "facade_3": _facade,
    "roof": _roof,
    "grass": _grass,
    "road": _road,
    "leaves": _leaves,
    "bark": _bark,
    "fence": _fence,
    "wall": _wall,
    "car_side": _car_side,
    "car_front": _car_end,
    "car_rear": _car_end,
    "car_glass": _car_glass,
    "metal": _metal,
    "clouds": _clouds,
}
NAMES = tuple(MAKERS)
# Textures of varied worlds alone (`varied_textures.py`), numbered after the others.
VARIED_NAMES = (
    "side_road",
    "facade_4",
    "facade_5",
    "leaves_1",
    "leaves_2",
    "lorry_side",
    "lorry_rear",
    "chassis",
    "bus_side",
    "rail",
    "concrete",
    "board",
)
ALL_NAMES = NAMES + VARIED_NAMES
