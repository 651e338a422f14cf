"""The differentiable inverse warp: what the target camera would see, sampled from the source images.

`sample` is the one place that knows the sampler's own coordinates; everybody else speaks in pixels, with integers at
pixel centres.
"""

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import pixel_grid

PADDINGS = ("zeros", "border")
_MIN_DEPTH = 1e-6  # depth at or below it is unknown
_MIN_Z_RATIO = 1e-6  # a point a million times nearer to the source camera than to the target is at its centre
_MAX_TRANSLATION = 1e15  # more would overflow float32 on the way, and inf / inf is NaN


def inverse_warp(
    sources: Tensor, depth: Tensor, source_from_target: Tensor, intrinsics: Tensor, padding: str = "zeros"
) -> tuple[Tensor, Tensor]:
    """Synthesise the target view from each source view (paper, eq. 2: p_s ~ K T_{t->s} D_t(p_t) K^-1 p_t).

    Args:
        sources: [B, N, C, H, W], all sources of the snippet.
        depth: [B, 1, H, W], the target's depth, z along the axis; in the unit of the translations.
        source_from_target: [B, N, 4, 4].
        intrinsics: [B, 3, 3], of images of this size; shared by target and sources.
        padding: what is sampled outside the source image: "zeros" or "border".

    Returns:
        The warped sources [B, N, C, H, W] and their validity [B, N, H, W] (bool): the point has a depth, lies in front
        of the source camera and falls between the centres of the source's outermost pixels. Neither values nor
        gradients are NaN for any finite input.

    Example: a camera moved by tz = -1 towards a wall at depth 10 (source 1 m closer: t = (0, 0, -1)) samples a pixel
    that is 9 to the right of the centre at 10 to the right of it.
    """
    _check_shapes(sources, depth, source_from_target, intrinsics)
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}, expected one of {', '.join(PADDINGS)}")
    batch, n_sources, channels, height, width = sources.shape

    x, y, z = _source_pixels(depth, source_from_target, intrinsics)
    in_front = (z > _MIN_Z_RATIO) & (depth > _MIN_DEPTH)
    z = torch.where(in_front, z, 1)
    x, y = x / z, y / z
    valid = in_front & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)

    # What is not in front is sent outside the image.
    x, y = torch.where(in_front, x, -2 * width), torch.where(in_front, y, -2 * height)
    warped = sample(sources.flatten(0, 1), x.flatten(0, 1), y.flatten(0, 1), padding)
    return warped.view(batch, n_sources, channels, height, width), valid


def sample(images: Tensor, x: Tensor, y: Tensor, padding: str) -> Tensor:
    """Bilinear samples of images at pixel coordinates: the project's one sampler.

    Args:
        images: [B, C, H, W].
        x, y: [B, h, w], in pixels; integers are pixel centres. Infinite ones and NaN count as outside.
        padding: what is sampled outside the image: "zeros" or "border".

    Returns:
        [B, C, h, w].
    """
    height, width = images.shape[2:]
    # The sampler wants -1 .. 1 from the first to the last centre. The clamp, far outside, keeps infinities out of it.
    x = (x * (2 / max(width - 1, 1)) - 1).clamp(-3, 3)
    y = (y * (2 / max(height - 1, 1)) - 1).clamp(-3, 3)
    grid = torch.stack([x, y], 1).nan_to_num(-3).permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=True)


def _source_pixels(depth: Tensor, source_from_target: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Homogeneous source pixels of all target pixels, divided by the target's depth: three of [B, N, H, W].

    K (R d K^-1 p + t) / d = p + K (R - I) K^-1 p + K t / d. Written as a difference from p, so that the identity
    gives p to the last bit, in float32 as well, and as one 3 x 3 matrix a source, so that no point cloud is made.
    """
    batch, n_sources = source_from_target.shape[:2]
    height, width = depth.shape[2:]
    grid = pixel_grid(height, width, depth)  # [3, H * W]
    rotation = source_from_target[..., :3, :3] - torch.eye(3, dtype=depth.dtype, device=depth.device)
    intrinsics = intrinsics[:, None]
    # inv_ex: unlike inv it doesn't make the host wait for the device to say that K is invertible.
    homography = intrinsics @ rotation @ torch.linalg.inv_ex(intrinsics).inverse  # [B, N, 3, 3], less the identity
    translation = source_from_target[..., :3, 3:].clamp(-_MAX_TRANSLATION, _MAX_TRANSLATION)
    epipole = intrinsics @ translation  # [B, N, 3, 1]

    inverse_depth = 1 / torch.where(depth > _MIN_DEPTH, depth, 1).flatten(1)[:, None, None]  # [B, 1, 1, H * W]
    pixels = homography @ grid + grid + epipole * inverse_depth
    x, y, z = pixels.view(batch, n_sources, 3, height, width).unbind(2)
    return x, y, z


def _check_shapes(sources: Tensor, depth: Tensor, source_from_target: Tensor, intrinsics: Tensor) -> None:
    if sources.ndim != 5:
        raise ValueError(f"sources: got shape {list(sources.shape)}, expected [B, N, C, H, W]")
    batch, n_sources, _, height, width = sources.shape
    expected = {
        "depth": (depth, [batch, 1, height, width]),
        "source_from_target": (source_from_target, [batch, n_sources, 4, 4]),
        "intrinsics": (intrinsics, [batch, 3, 3]),
    }
    for name, (tensor, shape) in expected.items():
        if list(tensor.shape) != shape:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {shape} for sources {[*sources.shape]}")
