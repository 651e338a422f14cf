"""Augmentation of a batch on the training device: random scale, crop and flip of images and K together."""

import torch
from torch import Tensor

from geometry.camera import crop_intrinsics, flip_intrinsics, scale_intrinsics
from inverse_warp import sample

AUGMENTATIONS = ("all", "flip", "none")
MAX_SCALE = 1.15


def augment(
    frames: Tensor,
    intrinsics: Tensor,
    generator: torch.Generator,
    only_flip: bool = False,
    piece: int = 0,
    pieces: int = 1,
) -> tuple[Tensor, Tensor]:
    """Enlarge each snippet by up to 15 % in each direction, cut out a piece of the old size, flip one in two.

    All frames of a snippet change alike, and K with them, so that geometry commutes with it.

    Args:
        frames: [B, L, 3, H, W] in [-1, 1].
        intrinsics: [B, 3, 3].
        generator: on the CPU, whatever the device of the frames: a seed gives the same on each.
        only_flip: no scale and crop, which move the principal point. PoseExpNet doesn't see K, and from two images
            alone another principal point looks like another direction of motion.
        piece, pieces: the frames are this one of so many equal pieces of a batch. Each snippet is changed as it would
            be in the whole batch.

    Returns:
        Frames and intrinsics of the same shapes.
    """
    batch, _, _, height, width = frames.shape
    random = torch.rand(pieces * batch, 5, generator=generator)[piece * batch : (piece + 1) * batch]
    scale = 1 + (MAX_SCALE - 1) * random[:, :2]
    offset = random[:, 2:4] * (scale - 1) * torch.tensor([width, height])
    parameters = torch.cat([scale, offset, (random[:, 4:] < 0.5).float()], 1)
    scale_x, scale_y, left, top, flip = parameters.to(frames.device, non_blocking=True).unbind(1)
    if only_flip:
        flipped = torch.where(flip[:, None, None, None, None] > 0, frames.flip(-1), frames)
        return flipped, torch.where(flip[:, None, None] > 0, flip_intrinsics(intrinsics, width), intrinsics)
    return scale_crop_flip(frames, intrinsics, scale_x, scale_y, left, top, flip)


def scale_crop_flip(
    frames: Tensor, intrinsics: Tensor, scale_x: Tensor, scale_y: Tensor, left: Tensor, top: Tensor, flip: Tensor
) -> tuple[Tensor, Tensor]:
    """Resize by the scales (from 1 on), crop at (left, top) to the old size, then flip: each argument [B].

    The three are one bilinear sampling: pixel x of the new image lies at (x + left + 0.5) / scale - 0.5 of the old one.
    """
    batch, length, channels, height, width = frames.shape
    x = torch.arange(width, device=frames.device, dtype=frames.dtype).expand(batch, width)
    y = torch.arange(height, device=frames.device, dtype=frames.dtype).expand(batch, height)
    x = torch.where(flip[:, None] > 0, width - 1 - x, x)
    x = (x + left[:, None] + 0.5) / scale_x[:, None] - 0.5
    y = (y + top[:, None] + 0.5) / scale_y[:, None] - 0.5
    x, y = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    frames = sample(frames.flatten(1, 2), x, y, "border").view(batch, length, channels, height, width)

    intrinsics = crop_intrinsics(scale_intrinsics(intrinsics, scale_x, scale_y), left, top)
    flipped = flip_intrinsics(intrinsics, width)
    return frames, torch.where(flip[:, None, None] > 0, flipped, intrinsics)
