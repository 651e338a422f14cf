"""Rigid motions: the network's 6-vector, 3 x 3 rotations and 4 x 4 transforms.

A transform is named after its frames so that neighbours cancel:
`source_from_world = source_from_target @ target_from_world`, and `X_source = source_from_target @ X_target`.
All functions take any number of leading batch dimensions, keep dtype and device, and are differentiable.
"""

import torch
from torch import Tensor

ROTATIONS = ("euler", "quaternion", "axis-angle")
_LARGEST_ANGLE = 1e4  # radians


def euler_to_matrix(angles: Tensor) -> Tensor:
    """Rotation matrix R = Rx Ry Rz of the angles (rx, ry, rz).

    Args:
        angles: [..., 3] in radians, about the camera's x (right), y (down) and z (forward) axes.

    Returns:
        [..., 3, 3]. Example: (0, 0, pi/2) turns x into y.
    """
    _check_last_dimension(angles, 3, "angles (rx, ry, rz)")
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    # Rx Ry Rz, multiplied out: three tiny matrix products a pose cost more than these nine terms.
    rows = (
        (cy * cz, -cy * sz, sy),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quaternion_to_matrix(vector: Tensor) -> Tensor:
    """Rotation matrix of the unit quaternion along (w, x, y, z) = (1, x, y, z).

    Three numbers suffice because w is fixed before normalisation: zero is the identity, and every rotation below 180
    degrees is possible.

    Args:
        vector: [..., 3], the quaternion's (x, y, z).

    Returns:
        [..., 3, 3]. Example: (0, 0, 1) is the quarter turn that turns x into y.
    """
    _check_last_dimension(vector, 3, "quaternion (x, y, z)")
    x, y, z = vector.unbind(-1)
    # With q = (1, v) / sqrt(1 + |v|^2):  R = I + 2 ([v]x + [v]x [v]x) / (1 + |v|^2).
    scale = 2 / (1 + (vector * vector).sum(-1))
    rows = (
        (1 - scale * (y * y + z * z), scale * (x * y - z), scale * (x * z + y)),
        (scale * (x * y + z), 1 - scale * (x * x + z * z), scale * (y * z - x)),
        (scale * (x * z - y), scale * (y * z + x), 1 - scale * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def axis_angle_to_matrix(vector: Tensor) -> Tensor:
    """Rotation matrix about an axis by an angle, the vector's direction and length (Rodrigues' formula).

    It is accurate and differentiable for any vector, also at zero, which is the identity.

    Args:
        vector: [..., 3], the axis times the angle in radians. Numbers beyond 10,000 count as 10,000: their squares
            would overflow.

    Returns:
        [..., 3, 3]. Example: (0, 0, pi/2) turns x into y.
    """
    _check_last_dimension(vector, 3, "axis-angle (x, y, z)")
    vector = vector.clamp(-_LARGEST_ANGLE, _LARGEST_ANGLE)
    x, y, z = vector.unbind(-1)
    # R = I + a [v]x + b [v]x [v]x with a = sin(t) / t and b = (1 - cos(t)) / t^2 = (sin(t/2) / (t/2))^2 / 2, t = |v|.
    square = (vector * vector).sum(-1)
    a, half = _sinc_of_root(torch.stack([square, square / 4])).unbind(0)
    b = half * half / 2
    rows = (
        (1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y),
        (b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x),
        (b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def pose_to_matrix(pose: Tensor, rotation: str = "euler") -> Tensor:
    """4 x 4 transform of the network's pose vector.

    Args:
        pose: [..., 6] = (tx, ty, tz, rx, ry, rz). From a pose network it is target to source.
        rotation: the meaning of the last three numbers: "euler" (radians, R = Rx Ry Rz), "quaternion" or "axis-angle".

    Returns:
        [..., 4, 4], `source_from_target` for a pose from a pose network.
    """
    _check_last_dimension(pose, 6, "pose (tx, ty, tz, rx, ry, rz)")
    if rotation not in ROTATIONS:
        raise ValueError(f"rotation is {rotation!r}, expected one of {', '.join(ROTATIONS)}")
    functions = (euler_to_matrix, quaternion_to_matrix, axis_angle_to_matrix)
    to_matrix = dict(zip(ROTATIONS, functions, strict=True))[rotation]
    return transform_from(to_matrix(pose[..., 3:]), pose[..., :3])


def transform_from(rotation: Tensor, translation: Tensor) -> Tensor:
    """4 x 4 transform [R t; 0 1] of a rotation [..., 3, 3] and a translation [..., 3]."""
    top = torch.cat([rotation, translation.unsqueeze(-1)], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], -2)


def invert(a_from_b: Tensor) -> Tensor:
    """`b_from_a` of the rigid transform `a_from_b` [..., 4, 4]: R^T and -R^T t, without a solver."""
    _check_transform(a_from_b)
    rotation = a_from_b[..., :3, :3].transpose(-1, -2)
    # Without a product of matrices, which autocast would compute in bfloat16.
    translation = -(rotation * a_from_b[..., None, :3, 3]).sum(-1)
    return transform_from(rotation, translation)


def compose(a_from_b: Tensor, b_from_c: Tensor) -> Tensor:
    """`a_from_c` of two transforms [..., 4, 4] that share the frame b; batch dimensions broadcast."""
    _check_transform(a_from_b)
    _check_transform(b_from_c)
    return a_from_b @ b_from_c


def snippet_poses(source_from_target: Tensor) -> Tensor:
    """Each frame's pose in the snippet's first frame, from the network's poses.

    Args:
        source_from_target: [..., N, 4, 4], N even, the sources in order of time with the target in their middle.

    Returns:
        `first_from_frame` [..., N + 1, 4, 4] in order of time; the first is the identity.
    """
    _check_transform(source_from_target)
    half = source_from_target.shape[-3] // 2
    target_from_target = torch.eye(4, dtype=source_from_target.dtype, device=source_from_target.device)
    target_from_target = target_from_target.expand_as(source_from_target[..., :1, :, :])
    before, after = source_from_target[..., :half, :, :], source_from_target[..., half:, :, :]
    frame_from_target = torch.cat([before, target_from_target, after], -3)
    return compose(frame_from_target[..., :1, :, :], invert(frame_from_target))


def _sinc_of_root(square: Tensor) -> Tensor:
    """sin(t) / t of t^2, with derivatives of all orders at 0, where those of the square root are infinite."""
    small = square < 0.25
    series = torch.ones_like(square)
    for n in range(7, 0, -1):  # 1 - t^2/3! + t^4/5! - ...; what is left out is below 1e-19
        series = 1 - series * square / (2 * n * (2 * n + 1))
    root = torch.where(small, 1, square).sqrt()  # the gradient of the branch that is not taken must be finite, too
    return torch.where(small, series, root.sin() / root)


def _check_last_dimension(tensor: Tensor, expected: int, meaning: str) -> None:
    if tensor.ndim < 1 or tensor.shape[-1] != expected:
        raise ValueError(f"{meaning}: got shape {list(tensor.shape)}, expected [..., {expected}]")


def _check_transform(transform: Tensor) -> None:
    if transform.shape[-2:] != (4, 4):
        raise ValueError(f"transform: got shape {list(transform.shape)}, expected [..., 4, 4]")


def rotation_angle(rotation: Tensor) -> Tensor:
    """Angle of rotations [..., 3, 3] in radians, [...]; accurate for small angles, too."""
    axis = torch.stack(  # twice the sine times the axis
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    twice_cosine = rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2(axis.norm(dim=-1), twice_cosine)
