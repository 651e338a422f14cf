"""Rotations of a pose vector and their derivatives, from the elementary rotations and from the quaternion product."""

import numpy as np


def about_axis(axis: int, angle: float) -> np.ndarray:
    """Counter-clockwise rotation about x (0), y (1) or z (2), 3 x 3."""
    c, s = np.cos(angle), np.sin(angle)
    return {
        0: np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        1: np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        2: np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis].astype(np.float64)


def euler(angles: np.ndarray) -> np.ndarray:
    """R = Rx Ry Rz."""
    return about_axis(0, angles[0]) @ about_axis(1, angles[1]) @ about_axis(2, angles[2])


def euler_derivatives(angles: np.ndarray) -> list[np.ndarray]:
    """dR / d angle, for each of the three: the derivative of a rotation is one by a quarter turn more, in its plane."""
    found = []
    for axis in range(3):
        factors = [about_axis(k, angles[k]) for k in range(3)]
        fixed = np.zeros((3, 3))
        fixed[axis, axis] = 1
        factors[axis] = about_axis(axis, angles[axis] + np.pi / 2) - fixed
        found.append(factors[0] @ factors[1] @ factors[2])
    return found


def _product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hamilton's product of quaternions (w, x, y, z)."""
    w = p[0] * q[0] - p[1:] @ q[1:]
    return np.array([w, *(p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))])


def quaternion(vector: np.ndarray) -> np.ndarray:
    """The rotation v -> q v q* of the unit quaternion along (1, x, y, z)."""
    q = np.array([1.0, *vector])
    q = q / np.sqrt(q @ q)
    conjugate = q * [1, -1, -1, -1]
    columns = [_product(_product(q, np.array([0.0, *unit])), conjugate)[1:] for unit in np.eye(3)]
    return np.stack(columns, 1)


MATRICES = {"euler": euler, "quaternion": quaternion}
