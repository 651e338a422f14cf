"""Filtered textures: rip-maps, made once and sampled at the size of a ray's footprint.

Streets are seen at a slant. A mip-map, which has one level for both axes, would blur the road away a few metres ahead.
A rip-map holds every pair of levels: the texture reduced by 2^i along u and by 2^j along v.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.synthetic.textures import SIZE

LEVELS = SIZE.bit_length()  # of an axis: 256, 128, ... 1 texels
ATLAS_SIZE = 2 * SIZE  # side of the square that holds all levels of one texture


class Footprint(NamedTuple):
    """Where n rays meet a texture: coordinates u, v, and their derivatives by the column (x) and row (y) of the ray."""

    u: Tensor  # [n] each, texels of level 0 (on the ground before `Ground.footprint`: metres)
    v: Tensor
    u_x: Tensor
    u_y: Tensor
    v_x: Tensor
    v_y: Tensor


def rip_maps(textures: np.ndarray) -> np.ndarray:
    """All levels of textures [T, SIZE, SIZE, 4], each in one square: float32 [T, ATLAS_SIZE, ATLAS_SIZE, 4].

    Level (i, j) begins at column `level_offset(i)` and row `level_offset(j)` and has SIZE >> i columns and SIZE >> j
    rows. Its texels are the means of 2^i x 2^j texels.
    """
    atlas = np.zeros((len(textures), ATLAS_SIZE, ATLAS_SIZE, 4), np.float32)
    rows: np.ndarray = textures.astype(np.float32)
    for j in range(LEVELS):
        top = level_offset(j)
        both = rows
        for i in range(LEVELS):
            left = level_offset(i)
            atlas[:, top : top + (SIZE >> j), left : left + (SIZE >> i)] = both
            both = (both[:, :, 0::2] + both[:, :, 1::2]) / 2 if i + 1 < LEVELS else both
        rows = (rows[:, 0::2] + rows[:, 1::2]) / 2 if j + 1 < LEVELS else rows
    return atlas


def level_offset(level: int) -> int:
    """First row or column of a level in the atlas: 0, 256, 384, ..."""
    return ATLAS_SIZE - (ATLAS_SIZE >> level)


def sample(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, level_u: Tensor, level_v: Tensor) -> Tensor:
    """Bilinear samples [n, 4] of repeating textures.

    Args:
        atlas: `rip_maps` with its first three dimensions flattened, [T * ATLAS_SIZE^2, 4].
        texture: number of the texture, int32 [n].
        u, v: coordinates in texels of level 0, [n]; texel k is centred at k + 0.5.
        level_u, level_v: levels to read from, int32 [n].
    """
    left, right, share_u = _neighbours(u, level_u)
    upper, lower, share_v = _neighbours(v, level_v)
    first = texture * (ATLAS_SIZE * ATLAS_SIZE)
    upper, lower = upper * ATLAS_SIZE + first, lower * ATLAS_SIZE + first
    share_u, share_v = share_u[:, None], share_v[:, None]
    top = torch.lerp(atlas.index_select(0, upper + left), atlas.index_select(0, upper + right), share_u)
    bottom = torch.lerp(atlas.index_select(0, lower + left), atlas.index_select(0, lower + right), share_u)
    return top.lerp_(bottom, share_v)


def _neighbours(u: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions in the atlas of the two texels that u lies between at its level, and the weight of the second."""
    size = torch.bitwise_right_shift(SIZE, level)
    position = (u * size).mul_(1 / SIZE).sub_(0.5)
    whole = position.floor()
    share = position.sub_(whole)
    index = whole.to(torch.int32)
    begin, mask = ATLAS_SIZE - 2 * size, size - 1
    return begin + torch.bitwise_and(index, mask), begin + torch.bitwise_and(index + 1, mask), share
