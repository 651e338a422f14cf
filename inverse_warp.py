"""The differentiable inverse warp: what the target camera would see, sampled from the source images.

The sampler's own coordinates stay in this file; everybody else speaks in pixels, with integers at pixel centres.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import invert_intrinsics, pixel_grid

PADDINGS = ("zeros", "border")
_MIN_DEPTH = 1e-6  # depth at or below it is unknown
_MIN_Z_RATIO = 1e-6  # a point a million times nearer to the source camera than to the target is at its centre
_OUTSIDE = 3.0  # the sampler's coordinate of what is outside: a whole image away from its border
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

    rotation = source_from_target[..., :3, :3] - torch.eye(3, dtype=depth.dtype, device=depth.device)
    translation = source_from_target[..., :3, 3].clamp(-_MAX_TRANSLATION, _MAX_TRANSLATION)
    intrinsics = intrinsics[:, None]
    homography = intrinsics @ rotation @ invert_intrinsics(intrinsics)  # [B, N, 3, 3], less the identity
    epipole = (intrinsics @ translation[..., None])[..., 0]  # [B, N, 3]
    grid, valid = _SourceGrid.apply(homography, epipole, depth)
    warped = _sample(sources.flatten(0, 1), grid.flatten(0, 1), padding)
    return warped.view(batch, n_sources, channels, height, width), valid


def depth_in_source(depth: Tensor, source_from_target: Tensor, intrinsics: Tensor) -> Tensor:
    """Depth of each target pixel's point in the source cameras: z of R D K^-1 p + t, [B, N, H, W].

    It is 0 or less for points that are not in front of a source camera.

    Args:
        depth: [B, 1, H, W], of the target.
        source_from_target: [B, N, 4, 4].
        intrinsics: [B, 3, 3].
    """
    height, width = depth.shape[2:]
    row = source_from_target[..., 2:3, :3] @ invert_intrinsics(intrinsics)[:, None]  # [B, N, 1, 3]
    z = (row @ pixel_grid(height, width, depth)).squeeze(2).unflatten(-1, (height, width))
    return z * depth + source_from_target[..., 2, 3, None, None]


def sample(images: Tensor, x: Tensor, y: Tensor, padding: str) -> Tensor:
    """Bilinear samples of images at pixel coordinates.

    Args:
        images: [B, C, H, W].
        x, y: [B, h, w], in pixels; integers are pixel centres. Infinite ones and NaN count as outside.
        padding: what is sampled outside the image: "zeros" or "border".

    Returns:
        [B, C, h, w].
    """
    height, width = images.shape[2:]
    x, y = x * _per_pixel(width) - 1, y * _per_pixel(height) - 1
    return _sample(images, torch.stack([x, y], 1).clamp(-_OUTSIDE, _OUTSIDE).nan_to_num(-_OUTSIDE), padding)


def _sample(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Bilinear samples at `grid` [B, 2, h, w], whose x and y are -1 .. 1 from the first to the last pixel centre."""
    grid = grid.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=True)


def _per_pixel(size: int) -> float:
    """The sampler's unit per pixel: it counts -1 .. 1 from the first to the last centre."""
    return 2 / max(size - 1, 1)


class _SourceGrid(torch.autograd.Function):
    """Where the sampler finds each target pixel in the sources, and whether that is inside: the warp's geometry.

    K (R d K^-1 p + t) / d = p + H p + e / d with H = K (R - I) K^-1 and the epipole e = K t. Written as a difference
    from p, so that the identity gives p to the last bit, in float32 as well. No point cloud is made.

    The backward pass is written by hand. The one that autograd derives makes twice as many passes over the pixels, and
    took more time than the sampler (docs/benchmarks.md).
    """

    @staticmethod
    def forward(ctx: Any, homography: Tensor, epipole: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """H [B, N, 3, 3], e [B, N, 3] and depth [B, 1, H, W] to the grid [B, N, 2, H, W] and validity [B, N, H, W]."""
        height, width = depth.shape[2:]
        known = depth > _MIN_DEPTH
        depth = torch.where(known, depth, 1)
        columns = torch.arange(width, dtype=depth.dtype, device=depth.device)
        rows = torch.arange(height, dtype=depth.dtype, device=depth.device)
        pixels = []  # homogeneous, divided by the target's depth: x, y and z, each [B, N, H, W]
        for coordinate in range(3):
            by_column, by_row, constant = (factor[..., None] for factor in homography[..., coordinate, :].unbind(-1))
            across, down = by_column * columns + constant, by_row * rows
            if coordinate == 0:
                across += columns
            elif coordinate == 1:
                down += rows
            else:
                across += 1
            sum_without_depth = across[..., None, :] + down[..., :, None]
            pixels.append(sum_without_depth.addcdiv_(epipole[..., coordinate, None, None], depth))
        x, y, z = pixels
        in_front = (z > _MIN_Z_RATIO) & known
        z = torch.where(in_front, z, 1)
        x /= z
        y /= z
        valid = in_front & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        grid = x.new_empty(*x.shape[:2], 2, height, width)
        for number, (pixel, size) in enumerate(((x, width), (y, height))):
            torch.mul(pixel, _per_pixel(size), out=grid[:, :, number])
        grid.sub_(1).clamp_(-_OUTSIDE, _OUTSIDE).masked_fill_(~in_front[:, :, None], -_OUTSIDE)
        ctx.mark_non_differentiable(valid)
        ctx.save_for_backward(x, y, z, in_front, depth, known, epipole)
        return grid, valid

    @staticmethod
    def backward(ctx: Any, grid_gradient: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z, in_front, depth, known, epipole = ctx.saved_tensors
        batch, n_sources, height, width = x.shape
        # The sampler's gradient is 0 far outside, so that the clamp needs no mask of its own.
        inverse_z, inverse_depth = z.reciprocal().masked_fill_(~in_front, 0), depth.reciprocal()
        by_pixel = x.new_empty(batch, n_sources, 3, height, width)  # gradient of the homogeneous pixels
        by_x, by_y, by_z = by_pixel.unbind(2)
        torch.mul(grid_gradient[:, :, 0], inverse_z, out=by_x).mul_(_per_pixel(width))
        torch.mul(grid_gradient[:, :, 1], inverse_z, out=by_y).mul_(_per_pixel(height))
        torch.mul(by_x, x, out=by_z).addcmul_(by_y, y).neg_()
        columns = torch.arange(width, dtype=x.dtype, device=x.device)
        rows = torch.arange(height, dtype=x.dtype, device=x.device)
        sum_of_row, sum_of_column = by_pixel.sum(-1), by_pixel.sum(-2)  # [B, N, 3, H] and [B, N, 3, W]
        by_homography = torch.stack([sum_of_column @ columns, sum_of_row @ rows, sum_of_row.sum(-1)], -1)
        flat = by_pixel.view(batch, 3 * n_sources, height * width)
        by_epipole = (flat @ inverse_depth.view(batch, -1, 1)).view_as(epipole)
        by_inverse_depth = (epipole.reshape(batch, 1, -1) @ flat).view_as(inverse_depth)
        by_depth = by_inverse_depth.mul_(inverse_depth).mul_(inverse_depth).neg_().masked_fill_(~known, 0)
        return by_homography, by_epipole, by_depth


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
