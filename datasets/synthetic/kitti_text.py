"""The text files of a world in KITTI's formats: calibration, time stamps, OXTS packets, sequences, splits.

datasets/formats/kitti.py reads them.
"""

import datetime

import numpy as np
from path import Path

from datasets.formats.kitti import EARTH_RADIUS
from datasets.synthetic.options import Drive, WorldOptions
from datasets.synthetic.output import write_text
from datasets.synthetic.sensors import (
    BASELINE,
    FRAME_TIME,
    RECTIFICATION,
    UNRECTIFIED_FROM_VELODYNE,
    VELODYNE_FROM_IMU,
    camera_from_imu,
    camera_from_velodyne,
    projection,
)
from geometry.rigid import relative_to_first, to_3x4

_LATITUDE, _LONGITUDE, _ALTITUDE = 49.0, 8.4, 115.0  # of the first packet of a drive: degrees, degrees, metres
_OXTS_NAMES = (
    "lat lon alt roll pitch yaw vn ve vf vl vu ax ay az af al au wx wy wz wf wl wu pos_accuracy vel_accuracy "
    "navstat numsats posmode velmode orimode"
)


def write_calibration(folder: Path, drive: Drive, options: WorldOptions) -> None:
    """The three calib_*.txt of a DATE folder."""
    size, intrinsics = [options.width, options.height], drive.intrinsics
    lines = [("calib_time", f"{drive.day:%d-%b-%Y %H:%M:%S}"), ("corner_dist", _row([0.0995]))]
    for camera, offset in (("00", 0.0), ("01", BASELINE), ("02", 0.0), ("03", BASELINE)):
        lines += [
            (f"S_{camera}", _row(size)),
            (f"K_{camera}", _row(intrinsics)),
            (f"D_{camera}", _row(np.zeros(5))),
            (f"R_{camera}", _row(np.eye(3))),
            (f"T_{camera}", _row(-RECTIFICATION.T @ [offset, 0, 0])),
            (f"S_rect_{camera}", _row(size)),
            (f"R_rect_{camera}", _row(RECTIFICATION)),
            (f"P_rect_{camera}", _row(projection(intrinsics, offset))),
        ]
    files = {"cam_to_cam": lines}
    for name, (rotation, translation) in (
        ("velo_to_cam", UNRECTIFIED_FROM_VELODYNE),
        ("imu_to_velo", VELODYNE_FROM_IMU),
    ):
        files[name] = [lines[0], ("R", _row(rotation)), ("T", _row(translation))]
    files["velo_to_cam"] += [("delta_f", _row([0, 0])), ("delta_c", _row([0, 0]))]
    for name, content in files.items():
        write_text(folder / f"calib_{name}.txt", "".join(f"{key}: {value}\n" for key, value in content))


def write_timestamps(drive_folder: Path, drive: Drive, frames: int) -> None:
    """timestamps.txt of every sensor that the drive has; of the LiDAR also when each turn starts and ends."""
    start = drive.day + datetime.timedelta(hours=8, minutes=5 * drive.number)
    shifts = {"timestamps": 0.0, "timestamps_start": -0.05, "timestamps_end": 0.05}  # seconds
    for sensor in ("image_02", "image_03", "velodyne_points", "oxts"):
        if not (drive_folder / sensor).exists():
            continue
        for name in shifts if sensor == "velodyne_points" else ("timestamps",):
            seconds = [shifts[name] + FRAME_TIME * frame for frame in range(frames)]
            times = [start + datetime.timedelta(seconds=value) for value in seconds]
            lines = [f"{time:%Y-%m-%d %H:%M:%S.%f}000\n" for time in times]
            write_text(drive_folder / sensor / f"{name}.txt", "".join(lines))


def write_oxts(folder: Path, world_from_camera: np.ndarray) -> None:
    """A packet of 30 numbers for each frame, from which KITTI's formula (Mercator projection) gives the poses.

    Args:
        folder: the drive's oxts folder.
        world_from_camera: [frames, 4, 4] of the left camera.
    """
    world_from_imu = world_from_camera @ camera_from_imu()
    rotation, position = world_from_imu[:, :3, :3], world_from_imu[:, :3, 3]
    metres = np.cos(np.radians(_LATITUDE)) * EARTH_RADIUS  # per radian; KITTI takes the scale of the first packet
    east, north = (position[:, :2] - position[0, :2]).T
    longitude = _LONGITUDE + np.degrees(east / metres)
    start = np.log(np.tan(np.radians(90 + _LATITUDE) / 2))
    latitude = np.degrees(2 * np.arctan(np.exp(start + north / metres))) - 90
    altitude = _ALTITUDE + position[:, 2]
    roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    pitch = -np.arcsin(rotation[:, 2, 0])
    yaw = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    velocity = np.gradient(position, FRAME_TIME, axis=0)
    acceleration = np.gradient(velocity, FRAME_TIME, axis=0) + [0, 0, 9.81]
    turning = np.stack([np.gradient(np.unwrap(angle), FRAME_TIME) for angle in (roll, pitch, yaw)], -1)
    for frame in range(len(position)):
        forward, left, up = rotation[frame].T @ velocity[frame]
        body = rotation[frame].T @ acceleration[frame]
        packet = [latitude[frame], longitude[frame], altitude[frame], roll[frame], pitch[frame], yaw[frame]]
        packet += [velocity[frame, 1], velocity[frame, 0], forward, left, up]  # north, east, then the car's own axes
        packet += [*body, *body, *turning[frame], *turning[frame], 0.02, 0.02]  # last: the two accuracies
        text = " ".join(f"{x:.15g}" for x in packet) + " 4 10 5 5 5\n"
        write_text(folder / "data" / f"{frame:010d}.txt", text)
    write_text(folder / "dataformat.txt", "\n".join(_OXTS_NAMES.split()) + "\n")


def write_poses(file: Path, world_from_camera: np.ndarray) -> None:
    """Poses [frames, 4, 4] as a poses file of KITTI odometry; its world is the first camera."""
    poses = to_3x4(relative_to_first(world_from_camera))
    write_text(file, "".join(_row(pose) + "\n" for pose in poses))


def write_sequence_texts(folder: Path, drive: Drive, frames: int) -> None:
    """calib.txt and times.txt of an odometry sequence."""
    offsets = (0.0, BASELINE, 0.0, BASELINE)
    lines = [f"P{k}: {_row(projection(drive.intrinsics, offset))}\n" for k, offset in enumerate(offsets)]
    write_text(folder / "calib.txt", "".join([*lines, f"Tr: {_row(camera_from_velodyne()[:3])}\n"]))
    write_text(folder / "times.txt", "".join(f"{FRAME_TIME * k:.6e}\n" for k in range(frames)))


def write_splits(folder: Path, options: WorldOptions, drives: list[Drive]) -> None:
    """Lists of scenes for each split, and test_files.txt: the test drives' images that have a LiDAR scan."""
    for split in ("train", "val", "test"):
        names = [f"{drive.scene}\n" for drive in drives if drive.split == split]
        write_text(folder / f"{split}_scenes.txt", "".join(names))
    files = [
        f"{drive.name}/image_02/data/{frame:010d}.png\n"
        for drive in drives
        if drive.split == "test"
        for frame in range(0, options.frames, options.scan_every)
    ]
    write_text(folder / "test_files.txt", "".join(files))


def _row(numbers) -> str:
    return " ".join(f"{number:.12e}" for number in np.asarray(numbers, float).ravel())
