"""The pinhole camera: pixels, rays and points, and K of resized, cropped and flipped images.

Integer coordinates are pixel centres, x = 0 .. W-1 to the right, y = 0 .. H-1 down; the image covers
[-0.5, W - 0.5] x [-0.5, H - 0.5]. The camera looks along +z, x right, y down. K [..., 3, 3] is in pixels of the
image that it travels with.
"""

import math

import torch
from torch import Tensor


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Homogeneous pixel coordinates (x, y, 1) of an image, row by row: [3, H * W], dtype and device of `like`."""
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    xx, yy = x.expand(height, width), y[:, None].expand(height, width)
    return torch.stack([xx, yy, torch.ones_like(xx)]).flatten(1)


def unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Camera points of a depth map: X = depth * K^-1 (x, y, 1).

    Args:
        depth: [B, 1, H, W], z along the camera's axis (not the ray's length).
        intrinsics: [B, 3, 3].

    Returns:
        [B, 3, H, W]. Example: fx = 2, cx = 3, the pixel x = 5 at depth 4 lies at X = 4.
    """
    _check_depth(depth)
    _check_intrinsics(intrinsics)
    height, width = depth.shape[2:]
    rays = invert_intrinsics(intrinsics) @ pixel_grid(height, width, depth)
    return rays.view(-1, 3, height, width) * depth


def project(points: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixel coordinates of camera points.

    Args:
        points: [B, 3, ...], z > 0. The coordinates of points at or behind the camera have no meaning (inf, nan, or
            the mirrored pixel): mask by z, as `inverse_warp` does.
        intrinsics: [B, 3, 3].

    Returns:
        [B, 2, ...], (x, y). Example: fx = 2, cx = 3, the point X = 4, Z = 4 falls on x = 5.
    """
    _check_intrinsics(intrinsics)
    if points.ndim < 3 or points.shape[1] != 3:
        raise ValueError(f"points: got shape {list(points.shape)}, expected [B, 3, ...]")
    pixels = intrinsics @ points.flatten(2)
    return (pixels[:, :2] / pixels[:, 2:]).view(points.shape[0], 2, *points.shape[2:])


def invert_intrinsics(intrinsics: Tensor) -> Tensor:
    """K^-1 of an upper triangular K, in closed form: [..., 3, 3]; what stands below the diagonal is not read.

    Unlike `torch.linalg.inv` it doesn't make the host wait for the device, and it can be captured in a CUDA graph.
    Example: K = [2 0 3; 0 2 0; 0 0 1] has the inverse [0.5 0 -1.5; 0 0.5 0; 0 0 1].
    """
    _check_intrinsics(intrinsics)
    (fx, skew, cx), (_, fy, cy), (_, _, one) = (row.unbind(-1) for row in intrinsics.unbind(-2))
    zero = torch.zeros_like(fx)
    rows = (
        (1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy * one)),
        (zero, 1 / fy, -cy / (fy * one)),
        (zero, zero, 1 / one),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def intrinsics_from_fov(degrees: float, height: int, width: int) -> Tensor:
    """K [3, 3] float64 of a camera with square pixels that sees so many degrees from the left edge to the right one.

    The principal point is the middle of the image. Example: 90 degrees at 8 x 4 pixels (width x height) give
    f = 4, cx = 3.5, cy = 1.5.
    """
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    rows = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64)


def scale_intrinsics(intrinsics: Tensor, scale_x: float | Tensor, scale_y: float | Tensor) -> Tensor:
    """K of the image resized by the factors: f' = s f, c' = (c + 0.5) s - 0.5.

    The factors are new size / old size, numbers or tensors of the batch's shape. Example: cx = 3.5 of an 8 pixels
    wide image (its middle) becomes 1.5 at half the width (again its middle).
    """
    _check_intrinsics(intrinsics)
    scale_x, scale_y = _per_row(scale_x), _per_row(scale_y)
    x, y, one = intrinsics.unbind(-2)
    return torch.stack([scale_x * x + (0.5 * scale_x - 0.5) * one, scale_y * y + (0.5 * scale_y - 0.5) * one, one], -2)


def crop_intrinsics(intrinsics: Tensor, left: float | Tensor, top: float | Tensor) -> Tensor:
    """K of the image without its first `left` columns and `top` rows: c' = c - offset."""
    _check_intrinsics(intrinsics)
    x, y, one = intrinsics.unbind(-2)
    return torch.stack([x - _per_row(left) * one, y - _per_row(top) * one, one], -2)


def flip_intrinsics(intrinsics: Tensor, width: int) -> Tensor:
    """K of the horizontally flipped image of this width: cx' = W - 1 - cx; fx stays positive.

    The flipped image shows the world mirrored at the camera's y-z plane: K' = F K M, where F flips pixels and
    M = diag(-1, 1, 1) mirrors points. Skew changes its sign.
    """
    _check_intrinsics(intrinsics)
    x, y, one = intrinsics.unbind(-2)
    flipped = torch.stack([(width - 1) * one - x, y, one], -2)
    return torch.cat([-flipped[..., :1], flipped[..., 1:]], -1)


def _per_row(value: float | Tensor) -> float | Tensor:
    return value.unsqueeze(-1) if isinstance(value, Tensor) else value


def _check_depth(depth: Tensor) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1:
        raise ValueError(f"depth: got shape {list(depth.shape)}, expected [B, 1, H, W]")


def _check_intrinsics(intrinsics: Tensor) -> None:
    if intrinsics.shape[-2:] != (3, 3):
        raise ValueError(f"intrinsics: got shape {list(intrinsics.shape)}, expected [..., 3, 3]")
