"""A clip's depth maps as one coloured point cloud, in constant memory."""

from dataclasses import dataclass, field

import numpy as np
from path import Path
from scipy.ndimage import maximum_filter, minimum_filter

from files.atomic import atomic_write
from files.images import resize_area

MOST_POINTS = 2_000_000  # of a cloud; where there would be more, its voxels double
# A disparity 1.3 times as large as another one beside it is an outline, where networks blur near into far.
_OUTLINE = 1.3
_BUFFERED = 500_000  # points that are collected before they are merged
_BITS = 21  # of a voxel's number along each axis
_HALF = 1 << (_BITS - 1)


@dataclass
class PointCloud:
    """The mean point and colour of each voxel.

    Args:
        voxel: side of a voxel, in the unit of the points. It doubles whenever there are more than `most` points.
    """

    voxel: float
    most: int = MOST_POINTS
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # ascending
    _sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 7)))  # count, then sums of x, y, z, r, g, b
    _new: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, points: np.ndarray, colours: np.ndarray) -> None:
        """Add points [N, 3] with colours uint8 [N, 3]."""
        sums = np.concatenate([np.ones((len(points), 1)), points, colours], 1, dtype=np.float64)
        self._new.append(_merge(self._numbers(points), sums))
        if sum(len(keys) for keys, _ in self._new) > _BUFFERED:
            self._fuse()

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Points float32 [N, 3] and colours uint8 [N, 3] of all voxels."""
        self._fuse()
        means = self._sums[:, 1:] / self._sums[:, :1]
        return means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8)

    def _fuse(self) -> None:
        if self._new:
            keys, sums = zip(*self._new, strict=True)
            self._new = []
            self._keys, self._sums = _merge(np.concatenate([self._keys, *keys]), np.concatenate([self._sums, *sums]))
        while len(self._keys) > self.most:
            self.voxel *= 2
            self._keys, self._sums = _merge(self._numbers(self._sums[:, 1:4] / self._sums[:, :1]), self._sums)

    def _numbers(self, points: np.ndarray) -> np.ndarray:
        """The voxel of each point as one number: int64 [N]."""
        while len(points) and np.abs(points).max() >= (_HALF - 1) * self.voxel:  # beyond the bits of a number
            self.voxel *= 2
        x, y, z = (np.floor(points / self.voxel).astype(np.int64) + _HALF).T
        return (x << 2 * _BITS) | (y << _BITS) | z


@dataclass(frozen=True)
class Fusion:
    """Adds the points of depth maps to a cloud, in the unit of the results: those that are near and sure enough, and
    not on an outline, where they would lie between the near thing and the far one."""

    cloud: PointCloud
    intrinsics: np.ndarray  # K at the size of the disparities
    scale: float  # from the networks' unit to that of the cloud
    far: float  # depth from which on points are left out, in the unit of the cloud
    sure: float  # least confidence

    def add(
        self, image: np.ndarray, disparity: np.ndarray, confidence: np.ndarray, world_from_camera: np.ndarray
    ) -> None:
        """Add a frame.

        Args:
            image: uint8 [H, W, 3] of any size.
            disparity, confidence: [h, w].
            world_from_camera: [3, 4] in the networks' unit.
        """
        depth = self.scale / disparity
        on_outline = maximum_filter(disparity, 3) > _OUTLINE * minimum_filter(disparity, 3)
        kept = (depth < self.far) & (confidence >= self.sure) & ~on_outline
        y, x = np.nonzero(kept)
        rays = np.linalg.solve(self.intrinsics, np.stack([x, y, np.ones(len(x))]))
        points = world_from_camera[:, :3] @ (rays * depth[kept]) + self.scale * world_from_camera[:, 3:]
        self.cloud.add(points.T, resize_area(image, *disparity.shape)[kept])


def _merge(keys: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same key added up, in ascending order of the keys."""
    if not len(keys):
        return keys, sums
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(sums[order], starts)


def write_ply(file: Path, points: np.ndarray, colours: np.ndarray, comments: list[str]) -> None:
    """Points float32 [N, 3] with colours uint8 [N, 3] as binary PLY, which MeshLab, CloudCompare and Open3D open."""
    rows = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colours
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    header += [*(f"property uchar {colour}" for colour in ("red", "green", "blue")), "end_header"]
    with atomic_write(file) as stream:
        stream.write("".join(f"{line}\n" for line in header).encode("ascii", "replace"))
        stream.write(rows.tobytes())
