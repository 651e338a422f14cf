"""Rotation matrices in numpy, float64, and what poses may be: for reading, averaging and comparing them."""

import numpy as np

FARTHEST = 1e12  # of a position, in whatever unit: beyond, squares and sums of them lose all digits or overflow
TOLERANCE = 1e-2  # of the entries of R^T R - I; files with five digits are well below


def is_rotation(matrices: np.ndarray) -> np.ndarray:
    """Whether matrices [..., 3, 3] are rotations (and no mirrors), to the digits that files have: bool [...]."""
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = np.abs(matrices.swapaxes(-1, -2) @ matrices - np.eye(3)).max((-1, -2))
        return (deviation < TOLERANCE) & (np.linalg.det(matrices) > 0)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations nearest to matrices [..., 3, 3] in the Frobenius norm; of a mean of rotations, the chordal mean."""
    u, _, v = np.linalg.svd(matrices)
    u[..., 2] *= np.linalg.det(u @ v)[..., None]
    return u @ v


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """Angle of rotations [..., 3, 3] in radians, exact for small ones, too: [...]."""
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
