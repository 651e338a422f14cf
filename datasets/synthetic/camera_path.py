"""The camera's path through a street: the car's speed along the road, and the pose of the left camera.

World frame: x east, y north, z up, metres. Camera frame: x right, y down, z forward.
"""

import numpy as np

from datasets.synthetic.road import VERTEX_SPACING, Road
from datasets.synthetic.sensors import CAMERA_AHEAD, CAMERA_HEIGHT, FRAME_TIME
from geometry.rigid import axis_rotation

START = 40.0  # metres from the beginning of the road to the first frame
MAX_STEP = 1.5  # metres per frame
_MIN_STEP = 0.3  # metres per frame, unless the car halts
_MAX_LATERAL_ACCELERATION = 2.6  # m/s^2, which limits the speed in bends
_BRAKING, _ACCELERATION = 3.5, 2.0  # m/s^2
_SHORTEST_DRIVE_WITH_HALTS = 40  # frames
_PATH_SPACING = 0.25  # metres between two points of the rear axle's path


def travel(rng: np.random.Generator, road: Road, frames: int, halts: bool, pace: float = 1.0) -> np.ndarray:
    """Metres along the road since the first frame, [frames].

    The car moves 0.3 to 1.5 m per frame, slower in bends and sometimes in traffic, each step times
    `pace` where that is more than 0.3 m. With `halts` it stands for 10 to 19 frames now and then.
    """
    # The largest step, in metres per frame, that each place of the road allows.
    limit = np.sqrt(_MAX_LATERAL_ACCELERATION / np.maximum(np.abs(road.curvature), 1e-3)) * FRAME_TIME
    wish = rng.uniform(0.6, 1.45) * pace
    halt_at = frames
    if halts and frames >= _SHORTEST_DRIVE_WITH_HALTS:
        soon = rng.random() < 0.6
        halt_at = int(rng.uniform(0.25, 0.75) * min(frames, 200)) if soon else 200
    halt_frames = int(rng.integers(10, 20))
    step, s, stood = min(wish, pace), 0.0, 0
    travelled = []
    for frame in range(frames):
        travelled.append(s)
        if rng.random() < 0.04:  # traffic: another speed
            wish = rng.uniform(0.4, 1.5) * pace
        here = int((START + s) / VERTEX_SPACING)
        limit_ahead = limit[here : here + int(12 / VERTEX_SPACING)].min()
        target = float(np.clip(min(wish, limit_ahead), _MIN_STEP, max(MAX_STEP * pace, _MIN_STEP)))
        if frame >= halt_at:
            target = 0.0
            stood += step == 0.0
            if stood == halt_frames:
                halt_at, stood, halt_frames = frame + int(rng.uniform(100, 200)), 0, int(rng.integers(10, 20))
        step = float(np.clip(target, step - _BRAKING * FRAME_TIME**2, step + _ACCELERATION * FRAME_TIME**2))
        s += step
    return np.array(travelled)


def camera_poses(
    rng: np.random.Generator, road: Road, s: np.ndarray, jitter: float, height: float = CAMERA_HEIGHT
) -> np.ndarray:
    """world_from_camera [n, 4, 4] of the left camera at `s` [n] metres along the road.

    The rear axle follows the right lane; the body pitches, rolls (standard deviation `jitter` degrees) and heaves.
    The camera is `height` metres above the ground.
    """
    axle, heading = _axle_path(rng, road, s)
    time = np.arange(len(s)) * FRAME_TIME
    # The springs swing at 0.5 to 1.4 Hz, and only while the car drives.
    steps = np.diff(s, prepend=s[0], append=s[-1])
    steps[0], steps[-1] = steps[1], steps[-2]
    shaking = np.minimum(np.minimum(steps[:-1], steps[1:]) / 0.5, 1.0)
    pitch, roll = (np.radians(jitter) * shaking * random_sines(rng, time, 0.5, 1.4) for _ in range(2))
    heave = 0.012 * shaking * random_sines(rng, time, 0.5, 1.4)

    sin, cos, zero = np.sin(heading), np.cos(heading), np.zeros_like(heading)
    right, down, forward = (sin, -cos, zero), (zero, zero, zero - 1), (cos, sin, zero)
    rotation = np.stack([np.stack(axis, -1) for axis in (right, down, forward)], -1)
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    poses[:, :3, :3] = rotation @ axis_rotation(0, pitch) @ axis_rotation(2, roll)
    poses[:, :2, 3] = axle + CAMERA_AHEAD * np.stack([cos, sin], -1)
    poses[:, 2, 3] = height + heave + CAMERA_AHEAD * np.sin(pitch)
    return poses


def random_sines(rng: np.random.Generator, x: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """A smooth random function of x [n] with standard deviation 1: five sines of frequencies `lowest` to `highest`."""
    frequency, phase = rng.uniform(lowest, highest, 5), rng.uniform(0, 2 * np.pi, 5)
    return np.sin(2 * np.pi * frequency * x[:, None] + phase).sum(-1) / np.sqrt(2.5)


def _axle_path(rng: np.random.Generator, road: Road, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 2] and headings [n] of the rear axle, which wanders within its lane."""
    along = np.arange(0, road.points.shape[0] * VERTEX_SPACING, _PATH_SPACING)
    left = -road.section.lane + 0.25 * random_sines(rng, along, 0.004, 0.02)
    point, _ = road.at(along, left)
    point = _smooth(point)
    heading = np.unwrap(np.arctan2(*np.gradient(point, axis=0).T[::-1]))
    axle = np.stack([np.interp(s, along, point[:, k]) for k in range(2)], -1)
    return axle, np.interp(s, along, heading)


def _smooth(points: np.ndarray, width: int = 9) -> np.ndarray:
    """Moving average over `width` points [n, 2] of a line; its ends are extended straight."""
    pad = width // 2
    first = points[0] - (points[1] - points[0]) * np.arange(pad, 0, -1)[:, None]
    last = points[-1] + (points[-1] - points[-2]) * np.arange(1, pad + 1)[:, None]
    padded = np.concatenate([first, points, last])
    return np.stack([np.convolve(padded[:, k], np.full(width, 1 / width), "valid") for k in range(2)], -1)
