"""HDR frames as the 8-bit pictures that networks train on: one fixed tone curve, so that no frame is brighter for what
another one shows.

From the signal to light by ITU-R BT.2100-2 (PQ: table 4; HLG: table 5, for a display of 1000 cd/m2), from BT.2020's
primaries to BT.709's by BT.2087, relative to the reference white of 203 cd/m2 (BT.2408), to sRGB. Light up to
`_KNEE` of the reference white is kept as it is; what is brighter, up to 1000 cd/m2, is compressed into the rest by
Reinhard's curve (Reinhard et al., "Photographic Tone Reproduction for Digital Images", 2002, equation 4). The curve is
that of the largest channel, which keeps the hue.
"""

import numpy as np

TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273, transfer characteristics
REFERENCE_WHITE = 203.0  # cd/m2
PEAK = 1000.0  # cd/m2
_KNEE = 0.6
_BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)  # of BT.2020's primaries
_LEVELS = 4096  # of the tables: the signal has 10 or 12 bits, and a step of the last one is below one of 8 bits
_BLOCK = 2**18  # pixels that are converted together: floats take 12 times the memory of a picture


def tone_mapped(signal: np.ndarray, transfer: str) -> np.ndarray:
    """An HDR frame as a picture: uint8 [H, W, 3], sRGB.

    Args:
        signal: uint16 [H, W, 3], R'G'B' of BT.2020's primaries in full range.
        transfer: "PQ" or "HLG".
    """
    if transfer not in TRANSFERS.values():
        raise ValueError(f"transfer is {transfer!r}, expected one of {', '.join(TRANSFERS.values())}")
    codes = signal.reshape(-1, 3)
    picture = np.empty(codes.shape, np.uint8)
    table = (pq_light if transfer == "PQ" else hlg_scene_light)(np.linspace(0, 1, _LEVELS)).astype(np.float32)
    encoded = np.rint(255 * _srgb(np.linspace(0, 1, _LEVELS))).astype(np.uint8)
    for start in range(0, len(codes), _BLOCK):
        light = table[codes[start : start + _BLOCK] // (2**16 // _LEVELS)]
        if transfer == "HLG":  # the system's gamma of 1.2 acts on the luminance
            light *= PEAK * np.maximum(light @ _LUMINANCE, 1e-6)[:, None] ** 0.2
        shown = compress((light / REFERENCE_WHITE) @ _BT709_FROM_BT2020.T)
        picture[start : start + _BLOCK] = encoded[np.rint((_LEVELS - 1) * shown).astype(np.int32)]
    return picture.reshape(signal.shape)


def compress(light: np.ndarray) -> np.ndarray:
    """Light [n, 3] relative to the reference white, BT.709's primaries, in 0 to 1."""
    light = np.maximum(light, 0)
    largest = np.maximum(light.max(1, keepdims=True), 1e-6)
    beyond = (np.minimum(largest, PEAK / REFERENCE_WHITE) - _KNEE) / (1 - _KNEE)
    most = (PEAK / REFERENCE_WHITE - _KNEE) / (1 - _KNEE)
    curve = _KNEE + (1 - _KNEE) * beyond * (1 + beyond / most**2) / (1 + np.maximum(beyond, 0))
    return np.minimum(light * np.where(beyond > 0, curve / largest, 1), 1)


def pq_light(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of a PQ signal in 0 to 1 (BT.2100-2, table 4). Example: 0.58 is 202 cd/m2."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def hlg_scene_light(signal: np.ndarray) -> np.ndarray:
    """The scene's light in 0 to 1 of an HLG signal in 0 to 1 (BT.2100-2, table 5). Example: 0.5 is 1 / 12."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _srgb(light: np.ndarray) -> np.ndarray:
    """The sRGB signal of light in 0 to 1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
