"""Normalisation and augmentation of a batch on the training device: images and K change together."""

import torch
from torch import Tensor

from geometry.camera import crop_intrinsics, flip_intrinsics, scale_intrinsics
from geometry.snippets import Snippets
from inverse_warp import sample

AUGMENTATIONS = ("all", "flip", "none")
MAX_SCALE = 1.15


def normalise(images: Tensor) -> Tensor:
    """uint8 [..., 3, H, W] to the networks' range [-1, 1], float32: x / 127.5 - 1."""
    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"images: got {images.dtype} {list(images.shape)}, expected uint8 [..., 3, H, W]")
    return images.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def normalise_snippets(snippets: Snippets) -> Snippets:
    """Snippets of uint8 images in the networks' range [-1, 1]."""
    return snippets._replace(target=normalise(snippets.target), sources=normalise(snippets.sources))


def draw_augmentation(generator: torch.Generator, batch: int, piece: int = 0, pieces: int = 1) -> Tensor:
    """The random numbers that `augment` needs for a batch: uniform in [0, 1), [batch, 5], on the CPU.

    Args:
        generator: on the CPU, so that a seed gives the same numbers for every device.
        batch: number of snippets.
        piece, pieces: the batch is this one of so many equal pieces of a step. Each snippet gets the numbers that it
            would get in the undivided batch.
    """
    return torch.rand(pieces * batch, 5, generator=generator)[piece * batch : (piece + 1) * batch]


def augment(snippets: Snippets, random: Tensor, kind: str = "all") -> Snippets:
    """Enlarge each snippet by up to 15 % in each direction, crop to the old size, flip one in two (paper, section 4).

    All frames of a snippet change alike, and K with them, so that geometry commutes with augmentation.

    Args:
        snippets: images in [-1, 1].
        random: [B, 5], of `draw_augmentation`, on the snippets' device.
        kind: "all"; "flip", without scale and crop, which move the principal point (a pose network does not see K, and
            in two images another principal point looks like another direction of motion); "none".

    Returns:
        Snippets of the same shapes.
    """
    if kind not in AUGMENTATIONS:
        raise ValueError(f"augmentation is {kind!r}, expected one of {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return snippets
    height, width = snippets.target.shape[2:]
    random_x, random_y, random_left, random_top, random_flip = random.unbind(1)
    scale_x, scale_y = 1 + (MAX_SCALE - 1) * random_x, 1 + (MAX_SCALE - 1) * random_y
    left, top = random_left * (scale_x - 1) * width, random_top * (scale_y - 1) * height
    flip = (random_flip < 0.5).float()
    if kind == "flip":
        return _flip(snippets, flip)
    return scale_crop_flip(snippets, scale_x, scale_y, left, top, flip)


def _flip(snippets: Snippets, flip: Tensor) -> Snippets:
    """Flip the snippets where `flip` [B] is 1."""
    target, sources, intrinsics = snippets[:3]
    flipped = flip[:, None, None] > 0
    return snippets._replace(
        target=torch.where(flipped[:, None], target.flip(-1), target),
        sources=torch.where(flipped[:, None, None], sources.flip(-1), sources),
        intrinsics=torch.where(flipped, flip_intrinsics(intrinsics, target.shape[3]), intrinsics),
        mirrored=_mirror(snippets.mirrored, flip),
    )


def _mirror(mirrored: Tensor | None, flip: Tensor) -> Tensor:
    return flip > 0 if mirrored is None else mirrored ^ (flip > 0)


def scale_crop_flip(
    snippets: Snippets, scale_x: Tensor, scale_y: Tensor, left: Tensor, top: Tensor, flip: Tensor
) -> Snippets:
    """Resize by the scales (1 or more), crop at (left, top) to the old size, then flip: each argument is [B].

    The three are one bilinear sampling: pixel x of the new image lies at (x + left + 0.5) / scale - 0.5 of the old one.
    """
    target, sources, intrinsics = snippets[:3]
    batch, _, height, width = target.shape
    x = torch.arange(width, device=target.device, dtype=target.dtype).expand(batch, width)
    y = torch.arange(height, device=target.device, dtype=target.dtype).expand(batch, height)
    x = torch.where(flip[:, None] > 0, width - 1 - x, x)
    x = (x + left[:, None] + 0.5) / scale_x[:, None] - 0.5
    y = (y + top[:, None] + 0.5) / scale_y[:, None] - 0.5
    x, y = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    # One call: the sampler's weights are computed once for all frames of a snippet.
    channels = torch.cat([target, sources.flatten(1, 2)], 1)
    sampled = sample(channels, x, y, "border")

    intrinsics = crop_intrinsics(scale_intrinsics(intrinsics, scale_x, scale_y), left, top)
    flipped = flip_intrinsics(intrinsics, width)
    intrinsics = torch.where(flip[:, None, None] > 0, flipped, intrinsics)
    target, sources = sampled.split([3, sampled.shape[1] - 3], 1)
    return snippets._replace(
        target=target.contiguous(),
        sources=sources.unflatten(1, (-1, 3)).contiguous(),
        intrinsics=intrinsics,
        mirrored=_mirror(snippets.mirrored, flip),
    )
