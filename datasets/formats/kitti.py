"""KITTI's file formats and geometry: calibration, LiDAR scans, OXTS packets, time stamps, poses. numpy only.

KITTI's coordinate frames: the LiDAR ("velo") and the IMU have x forward, y left, z up; camera 0 and the rectified
cameras have x right, y down, z forward. The rectified cameras 0 to 3 differ by a translation only. Cameras 0 and 1 are
grey, 2 and 3 are colour; 0 and 2 are the left ones.

A. Geiger, P. Lenz, C. Stiller, R. Urtasun, "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

import numpy as np
from path import Path

from files.errors import InputError
from files.text import parse_bounded, read_lines, read_rows
from geometry.rigid import axis_rotation, invert, is_rotation, transform_from

EARTH_RADIUS = 6378137.0  # metres, as in KITTI's development kit
_LATE = 1.5  # times the usual time between two frames
DEPTH_KINDS = ("camera_z", "velodyne_x")
_LARGEST_SIDE, _MOST_PIXELS = 16384, 2**25  # The limits of a camera's image size.
_LARGEST_SCAN = 64 * 2**20  # bytes. A revolution of the LiDAR is about 2 MB.

# The shape of the numbers that follow a key of a calibration file.
_CALIBRATION_SHAPES = {"S": (2,), "K": (3, 3), "D": (5,), "R": (3, 3), "T": (3,), "P": (3, 4), "Tr": (3, 4)}


def read_calibration(file: Path, required: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The matrices of a calib_*.txt of KITTI raw, or of a calib.txt of KITTI odometry.

    Lines are `KEY: numbers`. Keys K_.., R, R_.. become [3, 3], P_.., P0 .., Tr [3, 4], S_.. [2] (width, height),
    T, T_.. [3]. Keys that KITTI doesn't have become vectors. Dates (calib_time) are left out.

    Args:
        required: keys that the file must have.

    Returns:
        float64 arrays by key.

    Raises:
        InputError: a missing key, or damage, with its line.
    """
    matrices: dict[str, np.ndarray] = {}
    for number, line in enumerate(read_lines(file), 1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        key, colon, text = line.partition(":")
        key = key.strip()
        if not colon or not key:
            raise InputError(f"{where}: got {line[:40]!r}, expected KEY: numbers")
        if key.endswith("time"):
            continue
        if key in matrices:
            raise InputError(f"{where}: {key} for the second time")
        shape = _CALIBRATION_SHAPES.get(key.split("_")[0].rstrip("0123456789"))
        count = len(text.split()) if shape is None else int(np.prod(shape))
        values = np.array(parse_bounded(text, count, f"{where}, {key}"))
        matrices[key] = values if shape is None else values.reshape(shape)
    missing = [key for key in required if key not in matrices]
    if missing:
        raise InputError(f"{file}: no line '{missing[0]}: ...', expected {', '.join(required)}")
    for key, matrix in matrices.items():
        _check_matrix(key, matrix, f"{file}, {key}")
    return matrices


def _check_matrix(key: str, matrix: np.ndarray, where: str) -> None:
    """InputError unless an entry of a calibration file is an image size, a camera matrix or a rotation, by its key."""
    if key.startswith("S_"):
        width, height = matrix
        if min(width, height) < 1:
            raise InputError(f"{where}: image size {width:g} x {height:g}, expected at least 1 x 1")
        if max(width, height) > _LARGEST_SIDE or width * height > _MOST_PIXELS:
            raise InputError(f"{where}: image size {width:g} x {height:g}, expected that of a camera")
    if key.startswith("P") and matrix.shape == (3, 4):
        fx, fy = matrix[0, 0], matrix[1, 1]
        if not (fx > 0 and fy > 0):
            raise InputError(f"{where}: focal lengths {fx:g} and {fy:g}, expected both above 0")
        if not abs(np.linalg.det(matrix[:, :3])) > 1e-6 * fx * fy:  # it will be inverted
            raise InputError(f"{where}: expected K [I | t] with K = [fx s cx; 0 fy cy; 0 0 1]")
    if (key in ("R", "Tr") or key.startswith("R_rect_")) and not is_rotation(matrix[:, :3]):
        raise InputError(f"{where}: is no rotation")


def read_raw_calibration(date_folder: Path, camera: str) -> dict[str, np.ndarray]:
    """calib_cam_to_cam.txt of a date's folder; InputError unless it has the entries of a camera ("00" to "03")."""
    return read_calibration(
        Path(date_folder) / "calib_cam_to_cam.txt", ("R_rect_00", f"S_rect_{camera}", f"P_rect_{camera}")
    )


def read_rigid_calibration(file: Path) -> np.ndarray:
    """calib_velo_to_cam.txt or calib_imu_to_velo.txt as a transform: float64 [4, 4], cam0_from_velo or velo_from_imu.

    cam0 is the unrectified camera 0.
    """
    matrices = read_calibration(file, ("R", "T"))
    return transform_from(matrices["R"], matrices["T"])


def read_odometry_calibration(file: Path) -> dict[str, np.ndarray]:
    """calib.txt of a KITTI odometry sequence: at least one of P0 .. P3 [3, 4], and Tr [3, 4], if the file has it.

    Tr is cam0_from_velo.
    """
    matrices = read_calibration(file)
    if not any(f"P{camera}" in matrices for camera in range(4)):
        raise InputError(f"{file}: none of P0, P1, P2, P3, expected a calib.txt of KITTI odometry")
    return matrices


def read_velodyne(file: Path) -> np.ndarray:
    """A LiDAR scan: float32 [N, 4], x (forward), y (left), z (up) in metres in the LiDAR's frame, and reflectance."""
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    size = file.size
    if size == 0 or size % 16 or size > _LARGEST_SCAN:
        raise InputError(f"{file}: {size} bytes, expected a scan: 16 bytes a point, at most {_LARGEST_SCAN >> 20} MiB")
    points = np.fromfile(file, dtype="<f4").reshape(-1, 4)
    if not np.isfinite(points).all():
        raise InputError(f"{file}: point {int(np.argmin(np.isfinite(points).all(1)))} is not finite")
    return points


def read_oxts(file: Path) -> np.ndarray:
    """An OXTS packet (GPS and IMU): float64 [30], in the order of KITTI's dataformat.txt.

    [0:3] latitude, longitude (degrees), altitude (m); [3:6] roll, pitch, yaw (rad); [6:8] speed to north and east
    (m/s), [8:11] forward, left, up (m/s).
    """
    lines = [(number, line) for number, line in enumerate(read_lines(file), 1) if line.strip()]
    if len(lines) != 1:
        raise InputError(f"{file}: {len(lines)} lines, expected 1 of 30 numbers")
    number, line = lines[0]
    packet = np.array(parse_bounded(line, 30, f"{file}, line {number}"))
    if abs(packet[0]) > 89 or abs(packet[1]) > 360:  # Mercator's map ends at the poles
        raise InputError(
            f"{file}, line {number}: latitude {packet[0]:g}, longitude {packet[1]:g} are no place on a map"
        )
    return packet


def oxts_speed(packets: np.ndarray) -> np.ndarray:
    """Speed over ground of OXTS packets [..., 30] in m/s: [...]."""
    return np.hypot(packets[..., 6], packets[..., 7])


def read_timestamps(file: Path) -> np.ndarray:
    """timestamps.txt of KITTI raw ("2011-09-26 13:04:32.345808896" a line): datetime64[ns], one for each line.

    Line k, from 0, is the time of frame k. Real drives have blank lines: such a frame has no time (NaT). Blank lines
    at the end do not count.
    """
    lines = read_lines(file)
    while lines and not lines[-1].strip():
        lines.pop()
    stamps = []
    for number, line in enumerate(lines, 1):
        try:
            stamps.append(np.datetime64(line.strip() or "NaT", "ns"))
        except ValueError:
            raise InputError(f"{file}, line {number}: {line[:40]!r} is no time stamp") from None
    return np.array(stamps, dtype="datetime64[ns]")


def frame_seconds(stamps: np.ndarray, frames: list[int], file: Path) -> np.ndarray:
    """Times of some frames of a drive, in seconds since the first of them: float64 [len(frames)].

    Args:
        stamps: from `read_timestamps`.
        frames: frame numbers, ascending.
        file: the file that the stamps are from, for errors.

    Raises:
        InputError: one of these frames has no time, or their times do not rise.
    """
    for frame in frames:
        if frame >= len(stamps) or np.isnat(stamps[frame]):
            raise InputError(
                f"{file}: {len(stamps)} time stamps, none for frame {frame} (expected in line {frame + 1})"
            )
    seconds = (stamps[frames] - stamps[frames[0]]) / np.timedelta64(1, "s")
    if not (np.diff(seconds) > 0).all():
        raise InputError(f"{file}: the time stamps of frames {frames[0]} to {frames[-1]} do not rise")
    return seconds


def read_times(file: Path) -> np.ndarray:
    """times.txt of KITTI odometry, seconds since the first frame: float64 [n]."""
    return read_rows(file, 1)[:, 0]


def time_gaps(seconds: dict[int, float]) -> dict[int, float]:
    """Frames that come late: more than 1.5 times the usual time after the frame with the number before.

    A camera that drops frames leaves such gaps, where the numbers may go on without one.

    Args:
        seconds: by frame number, ascending.

    Returns:
        By such a frame, the seconds since the frame before. The usual time is the median.
    """
    steps = {frame: seconds[frame] - seconds[frame - 1] for frame in seconds if frame - 1 in seconds}
    usual = float(np.median([*steps.values()])) if steps else 0.0
    return {frame: step for frame, step in steps.items() if step > _LATE * usual > 0}


def read_poses(file: Path) -> np.ndarray:
    """A trajectory in KITTI's form, 12 numbers a line: float64 [n, 3, 4], world_from_camera, metres.

    The poses of KITTI odometry are those of rectified camera 0, in the frame of camera 0 at the first frame.
    """
    rows = read_rows(file, 12)
    if len(rows) == 0:
        raise InputError(f"{file}: no poses, expected 12 numbers a line")
    return rows.reshape(-1, 3, 4)


def oxts_to_poses(packets: np.ndarray) -> np.ndarray:
    """Poses of the IMU from OXTS packets, by the formula of KITTI's development kit.

    Latitude and longitude go through a Mercator projection whose scale is true at the first packet's latitude. The
    rotation is Rz(yaw) Ry(pitch) Rx(roll). The world is the IMU at the first packet.

    Args:
        packets: [n, 30].

    Returns:
        float64 [n, 4, 4], world_from_imu; the first is the identity.
    """
    if packets.ndim != 2 or packets.shape[1] != 30 or len(packets) == 0:
        raise ValueError(f"packets: got shape {list(packets.shape)}, expected [n, 30]")
    latitude, longitude, altitude, roll, pitch, yaw = packets[:, :6].T
    scale = np.cos(np.radians(latitude[0]))
    east = scale * EARTH_RADIUS * np.radians(longitude)
    north = scale * EARTH_RADIUS * np.log(np.tan(np.radians(90 + latitude) / 2))
    rotation = axis_rotation(2, yaw) @ axis_rotation(1, pitch) @ axis_rotation(0, roll)
    map_from_imu = transform_from(rotation, np.stack([east, north, altitude], -1))
    return invert(map_from_imu[0]) @ map_from_imu


def camera_from_rectified(projection: np.ndarray) -> np.ndarray:
    """A rectified camera's frame from that of camera 0, by its P = K [I | t] [3, 4]: float64 [4, 4].

    t is about (0.06, 0, 0) for camera 2 and (-0.48, 0, 0) for camera 3, in metres.
    """
    return transform_from(np.eye(3), np.linalg.solve(projection[:, :3], projection[:, 3]))


def camera_from_velodyne(cam_to_cam: dict[str, np.ndarray], velo_to_cam: np.ndarray, camera: str) -> np.ndarray:
    """A rectified camera's frame ("00" to "03") from the LiDAR's: float64 [4, 4].

    Args:
        cam_to_cam: from `read_raw_calibration`.
        velo_to_cam: [4, 4] from `read_rigid_calibration`.
    """
    rectified_from_cam0 = transform_from(cam_to_cam["R_rect_00"], np.zeros(3))
    return camera_from_rectified(cam_to_cam[f"P_rect_{camera}"]) @ rectified_from_cam0 @ velo_to_cam


def lidar_depth_map(
    points: np.ndarray,
    velo_to_cam: np.ndarray,
    cam_to_cam: dict[str, np.ndarray],
    camera: str,
    shape: tuple[int, int],
    kind: str = "camera_z",
    as_published: bool = True,
) -> np.ndarray:
    """The sparse depth map of a LiDAR scan in a rectified camera.

    It is computed as for the published figures (Eigen et al. 2014, Garg et al. 2016 and all since): points behind the
    LiDAR (x < 0) are dropped, a point falls on pixel (round(u) - 1, round(v) - 1), and the nearest point on a pixel
    counts. Pixels are computed in float64: in float32, some points fall on the neighbouring pixel.

    Args:
        points: [N, 3 or 4] from `read_velodyne`.
        velo_to_cam: [4, 4] from `read_rigid_calibration`.
        cam_to_cam: from `read_raw_calibration`.
        camera: "00" to "03".
        shape: (H, W) of the map. If it differs from the size of the camera's images (S_rect), the camera is scaled,
            c' = (c + 0.5) s - 0.5, and the minus 1 remains one pixel of the original image.
        kind: "camera_z" is depth along the camera's axis. "velodyne_x" is the LiDAR's x coordinate, which the
            published figures use as depth (about 0.27 m more).
        as_published: False leaves out the minus 1, which comes from KITTI's 1-based tools. The map then fits the
            camera matrix by this project's convention: pixel centres at integers from 0.

    Returns:
        float32 [H, W], metres, 0 = unknown.
    """
    if kind not in DEPTH_KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(DEPTH_KINDS)}")
    height, width = shape
    pixel, distance = _hit_pixels(points, velo_to_cam, cam_to_cam, camera, shape, kind, as_published)
    depth = np.zeros(height * width, dtype=np.float32)
    depth[pixel] = np.inf
    np.minimum.at(depth, pixel, distance)
    if as_published:
        _mix_row_ends_as_published(depth, pixel, distance, width)
    return depth.reshape(height, width)


def _hit_pixels(
    points: np.ndarray,
    velo_to_cam: np.ndarray,
    cam_to_cam: dict[str, np.ndarray],
    camera: str,
    shape: tuple[int, int],
    kind: str,
    as_published: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, row * W + column, of the points that fall into the image, int64 [n], and their depths, float32 [n].

    The arguments are those of `lidar_depth_map`.
    """
    height, width = shape
    old_width, old_height = cam_to_cam[f"S_rect_{camera}"]
    scale_x, scale_y = width / old_width, height / old_height
    resize = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5], [0, 0, 1]])
    projection = (
        resize @ cam_to_cam[f"P_rect_{camera}"][:, :3] @ camera_from_velodyne(cam_to_cam, velo_to_cam, camera)[:3]
    )
    margin = 3 + max(scale_x, scale_y)  # pixels. Rounding and the published minus 1 take up to 1 + scale of it.
    near = points.take(_near_the_view(points, projection, shape, margin), axis=0)
    xyz = near[:, :3].astype(np.float64).T
    u, v, z = projection[:, :3] @ xyz + projection[:, 3:]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = u / z, v / z
    if as_published:
        u, v = np.rint(u + (1 - scale_x)) - 1, np.rint(v + (1 - scale_y)) - 1
    else:
        u, v = np.rint(u), np.rint(v)
    inside = np.flatnonzero((xyz[0] >= 0) & (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height))
    pixel = (v[inside] * width + u[inside]).astype(np.int64)
    return pixel, (z if kind == "camera_z" else xyz[0])[inside].astype(np.float32)


def _near_the_view(points: np.ndarray, projection: np.ndarray, shape: tuple[int, int], margin: float) -> np.ndarray:
    """Indices of the points of a scan that may fall into an image: all that do, and few others.

    One in seven of a scan's points is in the image. This finds them in float32 and without a division: they lie on the
    inner side of planes through the camera, `margin` pixels outside the image's borders. Only these are projected in
    float64.
    """
    height, width = shape
    u, v, z = projection
    ahead = np.array([1.0, 0, 0, 0])
    borders = [u + margin * z, (width + margin) * z - u, v + margin * z, (height + margin) * z - v]
    planes = np.stack([ahead, z, *borders])
    slack = np.array([0, 0.1, 0.1, 0.1, 0.1, 0.1])  # more than float32 rounds, for points close to the camera
    offsets = (-planes[:, 3] - slack).astype(np.float32)
    # The reflectance, which points may have, counts 0: without it, the product would copy the points.
    normals = np.zeros((len(planes), points.shape[1]), np.float32)
    normals[:, :3] = planes[:, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        sides = normals @ points.astype(np.float32, copy=False).T
    near = sides[0] >= offsets[0]
    for side, offset in zip(sides[1:], offsets[1:], strict=True):
        near &= side >= offset
    return np.flatnonzero(near)


def _mix_row_ends_as_published(depth: np.ndarray, pixel: np.ndarray, distance: np.ndarray, width: int) -> None:
    """Repeat a bug of the published code, in place: it numbers pixels by row * (W - 1) + column.

    So the last pixel of a row and the first pixel of the next row have one number. Where the scan hits both, the pixel
    that is hit first gets the smallest depth of both, and the other keeps its last point's. This changes a pixel in
    every few maps.
    """
    row_ends = pixel[(pixel % width == width - 1) & (pixel < len(depth) - 1)]
    for last in set(row_ends[depth[row_ends + 1] > 0]):
        members = np.flatnonzero((pixel == last) | (pixel == last + 1))
        for point in members:
            depth[pixel[point]] = distance[point]
        depth[pixel[members[0]]] = distance[members].min()
