"""Bundle adjustment of many short clips at once: motion and structure from tracks of points.

A clip is a few frames around a reference frame. A point is a pixel of the reference with an inverse depth, so that a
clip with k frames and n points has 6 (k - 1) + n unknowns. Levenberg's and Marquardt's steps eliminate the inverse
depths, whose block is diagonal (Triggs et al., Bundle Adjustment - A Modern Synthesis, 1999, section 6.1). The
residuals count by Cauchy's loss: things that move are a few tracks that fit badly. All clips take their steps together,
each with its own damping, and each keeps its solution where a step makes it worse.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from geometry.two_view import FEWEST_TRACKS, relative_motion, triangulate

LOSS_SCALE = 0.3  # pixels, of Cauchy's loss: log(1 + (residual / scale)^2)
_FIRST_DAMPING = 1e-3
_LARGEST_TURN = 0.3  # radians of a step about each axis
_NEAREST = 1e-2  # of a point's z over the reference's z: nearer ones, and those behind the camera, are held here
_TINY = 1e-9
_FEWEST_SHARED = 8  # points that must be triangulated with both ends of a clip


class ClipMotion(NamedTuple):
    """Motion and structure of W clips of k frames with n points. The unit of length is each clip's own."""

    rotation: np.ndarray  # [W, k, 3, 3], frame_from_reference; the identity for the reference
    translation: np.ndarray  # [W, k, 3]
    inverse_depth: np.ndarray  # [W, n], of the points in the reference, at least 0
    cost: np.ndarray  # [W], sum of the loss over the tracks


class _Projection(NamedTuple):
    """The points in the frames. The last dimension is that of the points, so that sums over them are fast."""

    turned: np.ndarray  # [W, k, 3, n], rays after the rotation
    z: np.ndarray  # [W, k, n]
    place: np.ndarray  # [W, k, 2, n], x / z and y / z
    residual: np.ndarray  # [W, k, 2, n], pixels minus tracks
    weight: np.ndarray  # [W, k, n]
    cost: np.ndarray  # [W]


def first_motion(tracks: np.ndarray, intrinsics: np.ndarray, reference: int) -> ClipMotion | None:
    """Where the bundle adjustment of a clip begins: the motion between its middle and its ends at even steps, and the
    inverse depths that it triangulates; None where no essential matrix is found.

    Args:
        tracks: [k, n, 2], as `adjust_clips` takes them, for a single clip.
        intrinsics: K [3, 3].
        reference: number of a frame that has frames before and after it.

    Returns:
        Without the dimension of clips; the cost is infinite.
    """
    frames, points = tracks.shape[:2]
    rotation, translation = np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3))
    inverse_depths = np.full((2, points), np.nan)  # in units of the ends' distances from the middle
    sides = (range(frames - 1, reference, -1), range(reference))
    for side, numbers in enumerate(sides):
        end = next((n for n in numbers if np.isfinite(tracks[n, :, 0]).sum() >= FEWEST_TRACKS), None)
        if end is None:
            return None
        seen = np.isfinite(tracks[end, :, 0])
        motion = relative_motion(tracks[reference, seen], tracks[end, seen], intrinsics, refine=False)
        if motion is None:
            return None
        target_rays, source_rays = (
            np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(intrinsics).T
            for pixels in (tracks[reference, seen], tracks[end, seen])
        )
        inverse_depths[side, seen] = triangulate(target_rays, source_rays, motion)[0]
        turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
        for number in numbers:
            share = (number - reference) / (end - reference)
            rotation[number] = Rotation.from_rotvec(share * turn).as_matrix()
            translation[number] = share * motion[:3, 3]
    both = (inverse_depths > 0).all(0)
    if both.sum() < _FEWEST_SHARED:
        return None
    ratio = float(np.exp(np.median(np.log(inverse_depths[1, both] / inverse_depths[0, both]))))
    translation[:reference] *= ratio  # one unit of length for both sides
    inverse_depths[1] /= ratio
    together = np.where(np.isfinite(inverse_depths), inverse_depths, 0).sum(0) / np.isfinite(inverse_depths).sum(
        0
    ).clip(1)
    unit = float(np.median(together[both]))
    together = np.maximum(np.where(np.isfinite(inverse_depths).any(0), together, unit), 0.01 * unit)
    return ClipMotion(rotation, translation * unit, together / unit, np.array(np.inf))


def adjust_clips(
    tracks: np.ndarray, intrinsics: np.ndarray, first: ClipMotion, reference: int, iterations: int
) -> ClipMotion:
    """The motion and structure near a first one that fit the tracks best.

    Args:
        tracks: [W, k, n, 2], x and y of each point in each frame, NaN where it is not known. A point that is not known
            in the reference counts nowhere.
        intrinsics: K [W, 3, 3], of all frames of a clip.
        first: where the search begins; its cost is not looked at.
        reference: number of the frame among the k that the points belong to.
        iterations: steps that are tried.
    """
    problem = _Problem(tracks, intrinsics, reference)
    motion = first
    now = problem.project(motion)
    damping = np.full(len(tracks), _FIRST_DAMPING)
    for _ in range(iterations):
        tried = problem.step(motion, now, damping)
        then = problem.project(tried)
        better = then.cost < now.cost
        motion = ClipMotion(*(_choose(better, b, a) for a, b in zip(motion, tried, strict=True)))
        now = _Projection(*(_choose(better, b, a) for a, b in zip(now, then, strict=True)))
        damping = np.where(better, 0.3 * damping, 5 * damping)
    return motion._replace(cost=now.cost)


class _Problem:
    """The tracks of clips, and what does not change from step to step."""

    def __init__(self, tracks: np.ndarray, intrinsics: np.ndarray, reference: int) -> None:
        self.reference = reference
        known = np.isfinite(tracks).all(-1)
        known &= known[:, reference, None]
        known[:, reference] = False  # it defines the points
        self.known = known.astype(np.float64)
        self.tracks = np.nan_to_num(np.swapaxes(tracks, 2, 3))  # [W, k, 2, n]
        origin = self.tracks[:, reference]
        homogeneous = np.concatenate([origin, np.ones_like(origin[:, :1])], 1)
        self.rays = np.linalg.inv(intrinsics) @ homogeneous  # [W, 3, n]
        self.focal = intrinsics[:, [0, 1], [0, 1]][:, None, :, None]  # [W, 1, 2, 1]
        self.centre = intrinsics[:, :2, 2][:, None, :, None]
        self.others = [number for number in range(tracks.shape[1]) if number != reference]

    def project(self, motion: ClipMotion) -> _Projection:
        turned = motion.rotation @ self.rays[:, None]
        points = turned + motion.translation[..., None] * motion.inverse_depth[:, None, None]
        z = np.maximum(points[:, :, 2], _NEAREST)
        place = points[:, :, :2] / z[:, :, None]
        residual = (self.focal * place + self.centre - self.tracks) * self.known[:, :, None]
        squared = (residual**2).sum(2) / LOSS_SCALE**2
        return _Projection(turned, z, place, residual, self.known / (1 + squared), np.log1p(squared).sum((1, 2)))

    def step(self, motion: ClipMotion, now: _Projection, damping: np.ndarray) -> ClipMotion:
        """The motion after one damped Gauss-Newton step; its cost is not computed."""
        clips, frames, points = now.z.shape
        by_pose, by_depth = self._derivatives(motion, now)
        root = np.sqrt(now.weight)[:, :, None]
        by_pose *= root[:, :, None]
        by_depth *= root
        residual = now.residual * root
        flat = by_pose.reshape(clips, frames, 6, 2 * points)
        gradient = flat @ residual.reshape(clips, frames, 2 * points, 1)  # [W, k, 6, 1]
        of_poses = flat @ np.swapaxes(flat, 2, 3)  # [W, k, 6, 6]
        of_depths = (by_depth**2).sum((1, 2))  # [W, n]
        depth_gradient = (by_depth * residual).sum((1, 2))
        mixed = (by_pose * by_depth[:, :, None]).sum(3)[:, self.others].reshape(clips, -1, points)

        size = 6 * len(self.others)
        system = np.zeros((clips, size, size))
        for place, frame in enumerate(self.others):
            system[:, 6 * place : 6 * place + 6, 6 * place : 6 * place + 6] = of_poses[:, frame]
        diagonal = np.arange(size)
        system[:, diagonal, diagonal] += damping[:, None] * system[:, diagonal, diagonal] + _TINY
        of_depths = of_depths * (1 + damping[:, None]) + _TINY
        eliminated = mixed / of_depths[:, None]
        right = gradient[:, self.others].reshape(clips, size, 1) - eliminated @ depth_gradient[..., None]
        change = -np.linalg.solve(system - eliminated @ np.swapaxes(mixed, 1, 2), right)
        depth_change = -(depth_gradient + (np.swapaxes(mixed, 1, 2) @ change)[..., 0]) / of_depths

        pose_change = np.zeros((clips, frames, 6))
        pose_change[:, self.others] = change.reshape(clips, -1, 6)
        turn = Rotation.from_rotvec(np.clip(pose_change[..., :3], -_LARGEST_TURN, _LARGEST_TURN).reshape(-1, 3))
        return ClipMotion(
            turn.as_matrix().reshape(clips, frames, 3, 3) @ motion.rotation,
            motion.translation + pose_change[..., 3:],
            np.maximum(motion.inverse_depth + depth_change, 0),
            motion.cost,
        )

    def _derivatives(self, motion: ClipMotion, now: _Projection) -> tuple[np.ndarray, np.ndarray]:
        """Of the pixels: by a small rotation on the left and the translation, [W, k, 6, 2, n]; by the inverse depth,
        [W, k, 2, n]."""
        x, y = now.place[:, :, 0], now.place[:, :, 1]
        ray_x, ray_y, ray_z = (now.turned[:, :, axis] for axis in range(3))
        inverse_depth = motion.inverse_depth[:, None]
        by_pose = np.zeros((*x.shape[:2], 6, 2, x.shape[2]))
        by_pose[:, :, 0, 0], by_pose[:, :, 0, 1] = -x * ray_y, -ray_z - y * ray_y
        by_pose[:, :, 1, 0], by_pose[:, :, 1, 1] = ray_z + x * ray_x, y * ray_x
        by_pose[:, :, 2, 0], by_pose[:, :, 2, 1] = -ray_y, ray_x
        by_pose[:, :, 3, 0], by_pose[:, :, 4, 1] = inverse_depth, inverse_depth
        by_pose[:, :, 5] = -now.place * inverse_depth[:, :, None]
        across = motion.translation[..., None]  # [W, k, 3, 1]
        by_depth = across[:, :, :2] - now.place * across[:, :, 2:]
        scale = self.focal / now.z[:, :, None]  # [W, k, 2, n]
        return by_pose * scale[:, :, None], by_depth * scale


def _choose(better: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
