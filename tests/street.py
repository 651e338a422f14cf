"""A street of planes, as a camera sees it that drives on it: a road between two walls, textured by noise."""

from functools import lru_cache

import cv2
import numpy as np

from files.disk_array import DiskArray
from geometry.rigid import axis_rotation

HEIGHT, WIDTH = 64, 208
K = np.array([[120, 0, 103.5], [0, 130, 30.0], [0, 0, 1.0]])
WALL = 5.0  # metres from the road's middle
_TEXEL = 0.05  # metres
_FINE = 4  # rays per pixel and axis
_PLANES = (([0, 1, 0], None, (0, 2)), ([1, 0, 0], WALL, (2, 1)), ([-1, 0, 0], WALL, (2, 1)))  # normal, distance, u v


def rays(fine=1):
    """K^-1 (x, y, 1) of each pixel, [h, w, 3]; of `fine` x `fine` places in it."""
    y, x = (np.mgrid[: fine * HEIGHT, : fine * WIDTH] + 0.5) / fine - 0.5
    return np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T


def road(height, pitch=0.0, roll=0.0, far=200.0):
    """Disparity of a road that a camera at this height, pitched and rolled by degrees, sees below a wall."""
    down = axis_rotation(0, np.radians(pitch)) @ axis_rotation(2, np.radians(roll)) @ [0, 1, 0]
    return np.maximum(rays() @ down / height, 1 / far).astype(np.float32)


def drive(steps, pitch=0.0, turn=0.0):
    """world_from_camera [n + 1, 4, 4] of a camera that looks down by `pitch` degrees and drives steps of these metres,
    each of which turns it by `turn` degrees; y points down, and the camera is at y = 0.
    """
    poses = np.tile(np.eye(4), (len(steps) + 1, 1, 1))
    for number, step in enumerate([*steps, 0.0]):
        heading = axis_rotation(1, np.radians(turn * number))
        poses[number, :3, :3] = heading @ axis_rotation(0, np.radians(-pitch))
        if number < len(steps):
            half = axis_rotation(1, np.radians(turn * (number + 0.5)))  # the chord of the arc
            poses[number + 1 :, :3, 3] = poses[number, :3, 3] + half @ [0, 0, step]
    return poses


def picture(world_from_camera, height):
    """A frame, uint8 [h, w], and its disparity in 1/m, of a camera at this height above the road."""
    inverse, _ = _hits(world_from_camera, height, rays())
    _, fine = _hits(world_from_camera, height, rays(_FINE))  # without aliases
    image = cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return image.clip(0, 255).round().astype(np.uint8), inverse.astype(np.float32)


def _hits(world_from_camera, height, rays):
    """Inverse depth and grey value of the planes that rays of the camera meet."""
    directions, centre = rays @ world_from_camera[:3, :3].T, world_from_camera[:3, 3]
    inverse, image = np.full(rays.shape[:2], 1e-3), np.full(rays.shape[:2], 128.0)
    for number, (normal, distance, (u, v)) in enumerate(_PLANES):
        offset = height if distance is None else distance - centre @ normal
        own = directions @ normal / offset
        points = centre + directions / np.maximum(own, 1e-3)[..., None]
        at = [(points[..., k] / _TEXEL).astype(np.float32) % 512 for k in (u, v)]
        seen = cv2.remap(_texture(number), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        nearer = own > inverse
        inverse[nearer], image[nearer] = own[nearer], seen[nearer]
    return inverse, image


@lru_cache
def _texture(number):
    noise = cv2.GaussianBlur(np.random.default_rng(number).uniform(0, 255, (512, 512)), (0, 0), 2.5)
    return ((noise - noise.mean()) * (50 / noise.std()) + 128).astype(np.float32)


def frames_of(folder, poses, height):
    """The frames of a drive, and their disparities, as `DiskArray`s."""
    grey, disparity = DiskArray(folder, (HEIGHT, WIDTH), np.uint8), DiskArray(folder, (HEIGHT, WIDTH), np.float32)
    for pose in poses:
        for array, one in zip((grey, disparity), picture(pose, height), strict=True):
            array.append(one)
    return grey, disparity
