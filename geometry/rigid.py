"""Rigid motions in numpy, float64, for reading, converting and comparing poses. (`geometry/pose.py` is for networks.)

A transform is named after its frames so that neighbours cancel: `a_from_c = a_from_b @ b_from_c`, and
`X_a = a_from_b @ X_b`. All functions but `compose_motions` and `relative_to_first` take any number of leading batch
dimensions. A wrong shape raises ValueError.
"""

import numpy as np

FARTHEST = 1e12  # The largest coordinate of a position, in any unit. Beyond it, sums of squares lose their digits.
TOLERANCE = 1e-2  # The largest entry of |R^T R - I| of a rotation. Files with five digits stay well below it.


def transform_from(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The transform [R t; 0 1], [..., 4, 4], of rotations [..., 3, 3] and translations [..., 3], which broadcast."""
    _check_shape(rotation, (3, 3), "rotation")
    _check_shape(translation, (3,), "translation")
    transform = np.zeros((*np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1]), 4, 4))
    transform[..., :3, :3], transform[..., :3, 3], transform[..., 3, 3] = rotation, translation, 1
    return transform


def to_homogeneous(poses: np.ndarray) -> np.ndarray:
    """Poses [R t], [..., 3, 4], with the row (0, 0, 0, 1) below: float64 [..., 4, 4]."""
    _check_shape(poses, (3, 4), "poses")
    return transform_from(poses[..., :3], poses[..., 3])


def to_3x4(transforms: np.ndarray) -> np.ndarray:
    """Transforms [..., 4, 4] without their last row, as files have them: [..., 3, 4], a view."""
    _check_shape(transforms, (4, 4), "transforms")
    return transforms[..., :3, :]


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """`b_from_a` of rigid transforms [..., 4, 4]: R^T and -R^T t.

    It takes R for a rotation. Where R has the seven digits of a file, the product of both differs from the identity
    by 1e-7: use `relative`.
    """
    _check_shape(a_from_b, (4, 4), "transform")
    rotation = np.swapaxes(a_from_b[..., :3, :3], -1, -2)
    return transform_from(rotation, -(rotation @ a_from_b[..., :3, 3:])[..., 0])


def relative(world_from_a: np.ndarray, world_from_b: np.ndarray) -> np.ndarray:
    """`a_from_b` of two poses [..., 4, 4] in one world.

    The inverse is that of a general matrix, as in KITTI's development kit: poses from files have seven digits, so R^T
    is not the inverse of R to more than that, and a pose would not be the identity relative to itself.
    """
    _check_shape(world_from_a, (4, 4), "world_from_a")
    _check_shape(world_from_b, (4, 4), "world_from_b")
    return np.linalg.inv(world_from_a) @ world_from_b


def relative_to_first(world_from_frame: np.ndarray) -> np.ndarray:
    """`first_from_frame` [N, 4, 4] of poses [N, 4, 4] in any world; the first is the identity."""
    if world_from_frame.ndim != 3 or len(world_from_frame) == 0:
        raise ValueError(f"world_from_frame: got shape {list(world_from_frame.shape)}, expected [N > 0, 4, 4]")
    return relative(world_from_frame[0], world_from_frame)


def compose_motions(previous_from_frame: np.ndarray) -> np.ndarray:
    """The trajectory that frame-to-frame motions make, in the first frame.

    Args:
        previous_from_frame: [M, 3, 4], each frame's pose in the frame before it. M may be 0.

    Returns:
        first_from_frame [M + 1, 3, 4]; the first is the identity.
    """
    if previous_from_frame.ndim != 3:
        raise ValueError(f"previous_from_frame: got shape {list(previous_from_frame.shape)}, expected [M, 3, 4]")
    poses = np.concatenate([np.eye(4)[None], to_homogeneous(previous_from_frame)])
    # All products of neighbours, then of neighbouring products, ...: log2(M) steps instead of M.
    reach = 1
    while reach < len(poses):
        poses[reach:] = poses[:-reach] @ poses[reach:]
        reach *= 2
    return to_3x4(poses)


def axis_rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about x (0), y (1) or z (2) by angles [...] in radians: [..., 3, 3].

    Counter-clockwise, seen against the axis. Example: about z, pi / 2 turns x into y.
    """
    if axis not in (0, 1, 2):
        raise ValueError(f"axis is {axis!r}, expected 0, 1 or 2")
    angle = np.asarray(angle, dtype=np.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((*angle.shape, 3, 3))
    rotation[..., axis, axis] = 1
    rotation[..., i, i] = rotation[..., j, j] = np.cos(angle)
    rotation[..., j, i] = np.sin(angle)
    rotation[..., i, j] = -np.sin(angle)
    return rotation


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """Angle of rotations [..., 3, 3] in radians, 0 to pi: [...]. It is exact for tiny angles, too."""
    _check_shape(rotation, (3, 3), "rotation")
    # sin = |antisymmetric part| and cos = (trace - 1) / 2, here both twice as large.
    axis = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(rotation, axis1=-2, axis2=-1) - 1)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations nearest to matrices [..., 3, 3] in the Frobenius norm; of a mean of rotations, the chordal mean.

    Raises:
        numpy.linalg.LinAlgError: a matrix that is not finite.
    """
    _check_shape(matrices, (3, 3), "matrices")
    u, _, v = np.linalg.svd(matrices)
    u[..., 2] *= np.linalg.det(u @ v)[..., None]
    return u @ v


def is_rotation(matrices: np.ndarray) -> np.ndarray:
    """Whether matrices [..., 3, 3] are rotations, up to the digits that files have, and not mirrors: bool [...]."""
    _check_shape(matrices, (3, 3), "matrices")
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = np.abs(matrices.swapaxes(-1, -2) @ matrices - np.eye(3)).max((-1, -2))
        return (deviation < TOLERANCE) & (np.linalg.det(matrices) > 0)


def _check_shape(array: np.ndarray, last: tuple[int, ...], name: str) -> None:
    if array.shape[-len(last) :] != last:
        raise ValueError(f"{name}: got shape {list(array.shape)}, expected [..., {', '.join(map(str, last))}]")
