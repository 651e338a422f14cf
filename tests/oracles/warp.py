"""The inverse warp pixel by pixel, with its derivatives by the chain rule (paper, eq. 2: p_s ~ K T D(p_t) K^-1 p_t)."""

from dataclasses import dataclass

import numpy as np

from tests.oracles.rotations import MATRICES, euler_derivatives


@dataclass
class Warped:
    """One source seen from the target."""

    image: np.ndarray  # [C, H, W]
    valid: np.ndarray  # bool [H, W]
    by_depth: np.ndarray  # [C, H, W]: d image / d depth of the same pixel
    by_pose: np.ndarray  # [C, H, W, 6]: d image / d (tx, ty, tz, rx, ry, rz); zeros for quaternions


def warp(source, depth, pose, intrinsics, rotation="euler", padding="zeros") -> Warped:
    """A source [C, H, W] at the pixels of a target of depth [H, W]; pose [6] takes target to source."""
    channels, height, width = source.shape
    turn, shift = MATRICES[rotation](pose[3:]), pose[:3]
    turns = euler_derivatives(pose[3:]) if rotation == "euler" else []
    found = Warped(
        np.zeros((channels, height, width)),
        np.zeros((height, width), dtype=bool),
        np.zeros((channels, height, width)),
        np.zeros((channels, height, width, 6)),
    )
    for row in range(height):
        for column in range(width):
            ray = np.linalg.solve(intrinsics, [column, row, 1.0])
            point = turn @ (depth[row, column] * ray) + shift
            if point[2] <= 0:
                continue
            u, v, w = intrinsics @ point
            x, y = u / w, v / w
            found.valid[row, column] = 0 <= x <= width - 1 and 0 <= y <= height - 1
            value, by_x, by_y = bilinear(source, x, y, padding)
            found.image[:, row, column] = value

            def slope(moved, u=u, v=v, w=w, by_x=by_x, by_y=by_y):
                """d value where the point moves by `moved`."""
                du, dv, dw = intrinsics @ moved
                return by_x * (du * w - u * dw) / w**2 + by_y * (dv * w - v * dw) / w**2

            found.by_depth[:, row, column] = slope(turn @ ray)
            for k in range(3):
                found.by_pose[:, row, column, k] = slope(np.eye(3)[k])
            for k, derivative in enumerate(turns):
                found.by_pose[:, row, column, 3 + k] = slope(derivative @ (depth[row, column] * ray))
    return found


def bilinear(image, x, y, padding):
    """Value [C] of an image between its pixels, and its derivatives by x and y."""
    _, height, width = image.shape
    in_x, in_y = 0 < x < width - 1, 0 < y < height - 1
    if padding == "border":
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = int(np.floor(x)), int(np.floor(y))
    a, b = x - left, y - top

    def pixel(row, column):
        if padding == "border":
            row, column = min(row, height - 1), min(column, width - 1)
        inside = 0 <= row < height and 0 <= column < width
        return image[:, row, column] if inside else np.zeros(len(image))

    upper_left, upper_right = pixel(top, left), pixel(top, left + 1)
    lower_left, lower_right = pixel(top + 1, left), pixel(top + 1, left + 1)
    value = (1 - b) * ((1 - a) * upper_left + a * upper_right) + b * ((1 - a) * lower_left + a * lower_right)
    by_x = (1 - b) * (upper_right - upper_left) + b * (lower_right - lower_left)
    by_y = (1 - a) * (lower_left - upper_left) + a * (lower_right - upper_right)
    if padding == "border":  # beyond the border nothing changes
        by_x, by_y = by_x * in_x, by_y * in_y
    return value, by_x, by_y


def make_inputs(count=3, height=9, width=13) -> dict[str, np.ndarray]:
    """Random images, depths and motions; some points leave the source, all lie before it."""
    random = np.random.default_rng(3)
    f, cx, cy = 0.58 * width, 0.49 * width, 0.46 * height
    return {
        "source": random.uniform(-1, 1, (count, 3, height, width)),
        "depth": random.uniform(2, 12, (count, height, width)),
        "pose": random.normal(0, [0.3, 0.1, 0.3, 0.03, 0.06, 0.05], (count, 6)),
        "intrinsics": np.tile([[f, 0.3, cx], [0, 1.1 * f, cy], [0, 0, 1]], (count, 1, 1)),
        "cotangent": random.normal(size=(count, 3, height, width)),
    }


def figures(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the warp for inputs as `make_inputs` has them, by the names of the reference figures."""
    arguments = [[*pair] for pair in zip(*(inputs[k] for k in ("source", "depth", "pose", "intrinsics")), strict=True)]
    zeros, border, turned = (
        [warp(*one, rotation, padding) for one in arguments]
        for rotation, padding in (("euler", "zeros"), ("euler", "border"), ("quaternion", "zeros"))
    )
    found = {
        "warped_zeros": [one.image for one in zeros],
        "valid": [one.valid for one in zeros],
        "warped_border": [one.image for one in border],
        "warped_quat": [one.image for one in turned],
        "valid_quat": [one.valid for one in turned],
        "grad_depth": [(c * one.by_depth).sum(0) for c, one in zip(inputs["cotangent"], zeros, strict=True)],
        "grad_pose": [np.tensordot(c, one.by_pose, 3) for c, one in zip(inputs["cotangent"], zeros, strict=True)],
        "euler_matrices": [MATRICES["euler"](pose[3:]) for pose in inputs["pose"]],
        "quat_matrices": [MATRICES["quaternion"](pose[3:]) for pose in inputs["pose"]],
    }
    return {name: np.stack(values) for name, values in found.items()}
