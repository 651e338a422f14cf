"""Direct alignment: the motion by which the warped sources are most like the target, found without a network."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import invert_intrinsics, pixel_grid
from geometry.pose import axis_angle_to_matrix, transform_from
from inverse_warp import sample

_SOFTENING = 0.05  # of the error's absolute value, in the images' range: below it an error counts by its square
_DAMPING = 1e-3  # of each diagonal element of the normal equations
_LEAST_DIAGONAL = 1e-6  # added to them, for images without texture
_LARGEST_CHANGE = 0.2  # of a step, in radians, and in the unit of depth for translations
_MIN_Z = 1e-3  # in the unit of depth; nearer and behind the source camera there is no pixel
_LEAST_Z_RATIO = 0.1  # of a point's depth in the source to that in the target, for displacements
# Cost of a pixel that projects outside the source, so that moving pixels out of view does not lower the cost.
_COST_OUTSIDE = 0.2


class _Seen(NamedTuple):
    """What the target's pixels see in the sources by a motion: [B, N, P] each, P pixels."""

    x: Tensor  # the point in the source camera, on the plane z = 1
    y: Tensor
    inverse_z: Tensor
    inside: Tensor  # bool
    error: Tensor  # of grey
    by_x: Tensor  # derivatives of grey by pixels
    by_y: Tensor

    def cost(self) -> Tensor:
        """The mean absolute error [B, N]; outside the source it is a constant."""
        return (self.error.abs() * self.inside + _COST_OUTSIDE * ~self.inside).mean(-1)


@torch.no_grad()
def align(
    target: Tensor, sources: Tensor, depth: Tensor, source_from_target: Tensor, intrinsics: Tensor, steps: int
) -> Tensor:
    """Improve the motion to each source by Gauss-Newton steps on the photometric error of grey images, depth as given.

    It is the direct method of visual odometry in its forward form: a step changes the motion from the left by the
    twist that minimises the error, linearised in it, with weights that make it that of absolute values. Wang et al.,
    "Learning Depth from Monocular Videos using Direct Methods" (CVPR 2018) use such a motion in training.

    Args:
        target: [B, 3, h, w].
        sources: [B, N, 3, h, w].
        depth: [B, 1, h, w], of the target.
        source_from_target: [B, N, 4, 4], where to begin.
        intrinsics: [B, 3, 3], of images of this size.
        steps: number of Gauss-Newton steps.

    Returns:
        source_from_target [B, N, 4, 4], without a graph. Where the steps did not lower the error, it is the given one.
    """
    batch, n_sources, _, height, width = sources.shape
    grey, target = sources.mean(2).flatten(0, 1)[:, None], target.mean(1).flatten(1)[:, None]
    across = functional.pad((grey[..., 2:] - grey[..., :-2]) / 2, (1, 1, 0, 0))
    down = functional.pad((grey[..., 2:, :] - grey[..., :-2, :]) / 2, (0, 0, 1, 1))
    maps = torch.cat([grey, across, down], 1)  # each source and its derivatives: [B N, 3, h, w]
    unit = 1 / (1 / depth).mean((1, 2, 3))  # of translations: makes the normal equations well conditioned
    points = (invert_intrinsics(intrinsics) @ pixel_grid(height, width, depth)) * (
        depth.flatten(2) / unit[:, None, None]
    )
    f_x, f_y, c_x, c_y = (intrinsics[:, row, column, None, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))

    def look(motion: Tensor) -> _Seen:
        x, y, z = (motion[..., :3, :3] @ points[:, None] + motion[..., :3, 3:]).unbind(2)
        in_front = z > _MIN_Z
        inverse_z = torch.where(in_front, z, 1).reciprocal()
        x, y = x * inverse_z, y * inverse_z  # on the plane z = 1
        column, row = f_x * x + c_x, f_y * y + c_y
        inside = in_front & (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
        pixels = (batch * n_sources, height, width)
        sampled = sample(maps, column.reshape(pixels), row.reshape(pixels), "zeros")
        value, by_x, by_y = sampled.view(batch, n_sources, 3, -1).unbind(2)
        return _Seen(x, y, inverse_z, inside, value - target, by_x, by_y)

    def equations(seen: _Seen) -> tuple[Tensor, Tensor]:
        """The normal equations: J W J^T [B, N, 6, 6] and J W e [B, N, 6, 1], with J [B, N, 6, P] by (t, r)."""
        x, y, inverse_z, inside, error, by_x, by_y = seen
        by_x, by_y = by_x * f_x, by_y * f_y
        towards = by_x * x + by_y * y
        by_t = (by_x * inverse_z, by_y * inverse_z, -towards * inverse_z)
        by_r = (-towards * y - by_y, towards * x + by_x, by_y * x - by_x * y)
        root = inside * (error.abs() + _SOFTENING).rsqrt()  # of the weight
        rows = torch.stack([*by_t, *by_r, error], 2).mul_(root[:, :, None])
        products = rows @ rows.mT
        return products[..., :6, :6], products[..., :6, 6:]

    scaled = source_from_target.detach().clone()
    scaled[..., :3, 3] /= unit[:, None, None]
    motion, first = scaled, look(scaled)
    seen = first
    for _ in range(steps):
        change = -solve(*equations(seen)).clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        motion = transform_from(axis_angle_to_matrix(change[..., 3:]), change[..., :3]) @ motion
        seen = look(motion)
    better = seen.cost() < first.cost()
    motion = torch.where(better[..., None, None], motion, scaled)
    motion[..., :3, 3] *= unit[:, None, None]
    return motion


def displacement(depth: Tensor, motion: Tensor, other: Tensor, intrinsics: Tensor) -> Tensor:
    """How far apart two motions bring each pixel in the source images: |difference| in x and in y, [B, N, 2, P].

    Args:
        depth: [B, 1, h, w], of the target; P = h w.
        motion, other: source_from_target [B, N, 4, 4].
        intrinsics: [B, 3, 3], of images of this size.
    """
    rays = invert_intrinsics(intrinsics) @ pixel_grid(depth.shape[2], depth.shape[3], depth)
    inverse_depth = 1 / depth.flatten(2)[:, None]

    def project(pose: Tensor) -> Tensor:
        points = pose[..., :3, :3] @ rays[:, None] + pose[..., :3, 3:] * inverse_depth
        x, y, z = (intrinsics[:, None] @ points).unbind(2)
        return torch.stack([x, y], 2) / z.clamp(min=_LEAST_Z_RATIO)[:, :, None]

    return (project(motion) - project(other)).abs()


def solve(hessian: Tensor, gradient: Tensor) -> Tensor:
    """x of (H + damping) x = g for symmetric H [..., n, n], not negative, and g [..., n, 1]: [..., n].

    Gauss-Jordan elimination, which needs no pivot for such matrices, and no library: those of a GPU wait for the host.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    rows = torch.cat([hessian + torch.diag_embed(_DAMPING * diagonal + _LEAST_DIAGONAL), gradient], -1)
    for number in range(hessian.shape[-1]):
        row = rows[..., number : number + 1, :] / rows[..., number : number + 1, number : number + 1]
        factors = rows[..., number : number + 1].clone()
        factors[..., number, :] -= 1  # the row itself becomes `row`
        rows = rows - factors * row
    return rows[..., -1]
