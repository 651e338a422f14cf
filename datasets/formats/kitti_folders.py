"""Where KITTI raw and KITTI odometry keep their files, and what a camera's recording there consists of.

    raw:       DATE/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
               DATE/DATE_drive_NNNN_sync/{image_0X,velodyne_points,oxts}/data/0000000000.{png,bin,txt}
    odometry:  sequences/NN/{calib.txt,image_X/000000.png,velodyne/000000.bin}, poses/NN.txt

Anything but the images of one camera and the calibration may be missing.
"""

import os
import re
from dataclasses import dataclass, field

import numpy as np
from path import Path

from datasets.formats import kitti
from files.errors import InputError
from geometry.rigid import invert, is_rotation, to_homogeneous

LAYOUTS = ("raw", "odometry")
COLOUR_CAMERAS = ("02", "03")
GREY_CAMERAS = ("00", "01")
_DATE = re.compile(r"\d{4}_\d\d_\d\d")
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
_SEQUENCE = re.compile(r"\d\d")


@dataclass(frozen=True)
class Recording:
    """What one rectified camera recorded on one drive (raw) or sequence (odometry)."""

    layout: str
    drive: str  # 2011_09_26_drive_0001_sync, or 00
    folder: Path  # of the drive or sequence
    camera: str  # 00 to 03
    images: dict[int, Path] = field(repr=False)  # by frame number
    scans: dict[int, Path] = field(repr=False)
    packets: dict[int, Path] = field(repr=False)  # OXTS; raw only

    @property
    def scene(self) -> str:
        """The name of the prepared scene, as the well-known PyTorch port has it."""
        return f"{self.drive}_{self.camera}" if self.layout == "raw" else f"{self.drive}_{int(self.camera)}"

    @property
    def poses_file(self) -> Path | None:
        """The ground truth of an odometry sequence, where there is one."""
        file = self.folder.parent.parent / "poses" / f"{self.drive}.txt"
        return file if self.layout == "odometry" and file.is_file() else None

    @property
    def has_poses(self) -> bool:
        return bool(self.packets) or self.poses_file is not None


def detect_layout(root: Path) -> str:
    """ "raw" or "odometry"; InputError if the folder holds neither, or both."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    found = [layout for layout, drives in (("raw", _raw_drives(root)), ("odometry", _sequences(root))) if drives]
    if len(found) == 2:
        raise InputError(f"{root}: holds KITTI raw and KITTI odometry, choose by --layout raw or --layout odometry")
    if not found:
        hint = ""
        if _DATE.fullmatch(root.name) or root.name == "sequences":
            hint = f" (is it {root.parent} that you mean?)"
        elif _DRIVE.fullmatch(root.name) or _SEQUENCE.fullmatch(root.name):
            hint = f" (is it {root.parent.parent} that you mean?)"
        raise InputError(
            f"{root}: no KITTI in it, expected DATE/DATE_drive_NNNN_sync/image_02/data/*.png (raw) "
            f"or sequences/NN/image_2/*.png (odometry){hint}"
        )
    return found[0]


def drive_folders(root: Path, layout: str) -> list[Path]:
    """The folders of all drives or sequences, in order of their names; InputError if there is none."""
    folders = _raw_drives(root) if layout == "raw" else _sequences(root)
    if not folders:
        what = "DATE/DATE_drive_NNNN_sync" if layout == "raw" else "sequences/NN"
        raise InputError(f"{root}: no KITTI {layout} in it, expected folders {what}")
    return folders


def _raw_drives(root: Path) -> list[Path]:
    dates = [folder for folder in Path(root).dirs() if _DATE.fullmatch(folder.name)]
    return sorted(drive for date in dates for drive in date.dirs() if _DRIVE.fullmatch(drive.name))


def _sequences(root: Path) -> list[Path]:
    for folder in (Path(root) / "sequences", Path(root) / "dataset" / "sequences"):  # KITTI's archives have "dataset"
        if folder.is_dir():
            return sorted(sequence for sequence in folder.dirs() if _SEQUENCE.fullmatch(sequence.name))
    return []


def find_recordings(drive: Path, layout: str, cameras: list[str] | None) -> list[Recording]:
    """The recordings of a drive's cameras, as far as they are there.

    Args:
        cameras: "00" to "03"; None takes the colour ones, or the grey ones where there is no colour.
    """

    scans = _numbered(drive / ("velodyne_points/data" if layout == "raw" else "velodyne"), (".bin",))
    packets = _numbered(drive / "oxts/data", (".txt",)) if layout == "raw" else {}

    def recordings(wanted: tuple[str, ...] | list[str]) -> list[Recording]:
        images = {camera: _numbered(drive / _image_folder(layout, camera), (".png", ".jpg")) for camera in wanted}
        return [Recording(layout, str(drive.name), drive, c, images[c], scans, packets) for c in images if images[c]]

    if cameras is not None:
        return recordings(cameras)
    return recordings(COLOUR_CAMERAS) or recordings(GREY_CAMERAS)


def _image_folder(layout: str, camera: str) -> str:
    return f"image_{camera}/data" if layout == "raw" else f"image_{int(camera)}"


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    """The files 000123.SUFFIX of a folder by number, in order; empty if there is no such folder."""
    if not folder.is_dir():
        return {}
    files = {}
    for name in os.listdir(folder):  # by name alone: asking the disk about each of 100,000 files takes its time
        stem, suffix = os.path.splitext(name)
        if stem.isdecimal() and suffix.lower() in suffixes:
            files[int(stem)] = folder / name
    return dict(sorted(files.items()))


@dataclass(frozen=True)
class Calibration:
    """What is known of a rectified camera."""

    projection: np.ndarray  # [3, 4], in pixels of the images: K [I | t], from the rectified frame of camera 0
    camera_from_imu: np.ndarray | None  # [4, 4], raw only
    cam_to_cam: dict[str, np.ndarray]  # as `kitti.lidar_depth_map` takes it
    velo_to_cam: np.ndarray | None  # [4, 4]


def read_calibration(recording: Recording, need_lidar: bool, need_imu: bool) -> Calibration:
    """Calibration of a recording's camera; InputError if a file that is needed is missing or damaged.

    In odometry the size of the images (S_rect) is not part of it: whoever maps LiDAR points has to add it.
    """
    camera = recording.camera
    if recording.layout == "odometry":
        matrices = kitti.read_odometry_calibration(recording.folder / "calib.txt")
        needed = [f"P{int(camera)}"] + ["Tr"] * need_lidar
        for key in needed:
            if key not in matrices:
                raise InputError(
                    f"{recording.folder / 'calib.txt'}: no line '{key}: ...', needed for {recording.scene}"
                )
        projection = matrices[f"P{int(camera)}"]
        cam_to_cam = {"R_rect_00": np.eye(3), f"P_rect_{camera}": projection}
        return Calibration(projection, None, cam_to_cam, to_homogeneous(matrices["Tr"]) if need_lidar else None)
    date = recording.folder.parent
    cam_to_cam = kitti.read_raw_calibration(date, camera)
    if not need_lidar and not need_imu:
        return Calibration(cam_to_cam[f"P_rect_{camera}"], None, cam_to_cam, None)
    velo_to_cam = kitti.read_rigid_calibration(date / "calib_velo_to_cam.txt")
    camera_from_imu = None
    if need_imu:
        velo_from_imu = kitti.read_rigid_calibration(date / "calib_imu_to_velo.txt")
        camera_from_imu = kitti.camera_from_velodyne(cam_to_cam, velo_to_cam, camera) @ velo_from_imu
    return Calibration(cam_to_cam[f"P_rect_{camera}"], camera_from_imu, cam_to_cam, velo_to_cam)


def read_packets(recording: Recording) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The OXTS packets [30] of a recording's frames, and what is wrong with those that are missing or damaged."""
    packets, problems = {}, {}
    for frame in recording.images:
        try:
            if frame not in recording.packets:
                raise InputError(f"{recording.folder / 'oxts/data'}: no OXTS packet for frame {frame}")
            packets[frame] = kitti.read_oxts(recording.packets[frame])
        except (InputError, OSError) as error:
            problems[frame] = str(error)
    return packets, problems


def camera_poses(
    recording: Recording, calibration: Calibration, packets: dict[int, np.ndarray]
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """world_from_camera [4, 4] of a recording's frames, and what is wrong with the frames that have none.

    The world is any fixed frame: `geometry.rigid.relative_to_first` makes it the first camera.
    """
    if calibration.camera_from_imu is not None:
        if not packets:
            return {}, {}
        world_from_imu = kitti.oxts_to_poses(np.stack(list(packets.values())))
        imu_from_camera = invert(calibration.camera_from_imu)
        return {frame: pose @ imu_from_camera for frame, pose in zip(packets, world_from_imu, strict=True)}, {}
    if recording.poses_file is None:
        raise ValueError(f"{recording.scene}: neither the IMU's calibration nor a poses file")
    rows = kitti.read_poses(recording.poses_file)
    rigid = is_rotation(rows[:, :, :3])
    if not rigid.all():
        raise InputError(f"{recording.poses_file}, line {np.argmin(rigid) + 1}: the 3 x 3 part is no rotation")
    world_from_rectified = to_homogeneous(rows)
    rectified_from_camera = invert(kitti.camera_from_rectified(calibration.projection))
    poses = {f: world_from_rectified[f] @ rectified_from_camera for f in recording.images if f < len(rows)}
    missing = f"{recording.poses_file}: {len(rows)} lines, none for frame "
    return poses, {frame: f"{missing}{frame}" for frame in recording.images if frame not in poses}
