"""KITTI's folders: the files of KITTI raw and KITTI odometry, by drive, camera and frame number. numpy only.

    raw:       DATE/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
               DATE/DATE_drive_NNNN_sync/{image_0X,velodyne_points,oxts}/data/0000000000.{png,bin,txt}
    odometry:  sequences/NN/{calib.txt,times.txt,image_X/000000.png,velodyne/000000.bin}, poses/NN.txt

Everything but the images of one camera and the calibration may be missing. Odometry's folders may lie in `dataset/`,
as KITTI's archives have them. Images may have been converted to JPEG. Numbers need no padding with zeros.

Files are listed by name alone. A file that cannot be opened, such as a dangling link, is listed, too: reading it raises
an InputError that names it.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from path import Path

from datasets.formats import kitti
from datasets.layout import IMAGE_SUFFIXES, describe_gap, is_image_name, number_gaps, read_paths
from files.errors import InputError
from geometry.rigid import invert, is_rotation, to_homogeneous

LAYOUTS = ("raw", "odometry")
COLOUR_CAMERAS = ("02", "03")
GREY_CAMERAS = ("00", "01")
_DATE = re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}")
_DRIVE = re.compile(rf"{_DATE.pattern}_drive_[0-9]{{4}}_sync")
_DRIVE_OR_SCENE = re.compile(rf"({_DATE.pattern}_drive_[0-9]{{4}})(_(sync|extract))?(_[0-9]{{2}})?")
_SEQUENCE = re.compile(r"[0-9]{2}")
_NUMBERED = re.compile(r"[^0-9]*([0-9]+)")
_SIDES = {"l": "image_02", "r": "image_03"}  # in lists of the form DATE/DRIVE FRAME l


@dataclass(frozen=True)
class Recording:
    """The files of one rectified camera on one drive (raw) or sequence (odometry)."""

    layout: str  # one of LAYOUTS
    drive: str  # 2011_09_26_drive_0001_sync, or 00
    folder: Path  # of the drive or sequence
    camera: str  # 00 to 03
    images: dict[int, Path] = field(repr=False)  # by frame number, ascending
    scans: dict[int, Path] = field(repr=False)  # by frame number
    packets: dict[int, Path] = field(repr=False)  # OXTS, by frame number; raw only
    poses_file: Path | None  # the ground truth of an odometry sequence

    @property
    def scene(self) -> str:
        """The name of the prepared scene, as the well-known PyTorch port has it."""
        return f"{self.drive}_{self.camera}" if self.layout == "raw" else f"{self.drive}_{int(self.camera)}"

    @property
    def has_poses(self) -> bool:
        return bool(self.packets) or self.poses_file is not None


# Folders


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
    """The folders of all drives or sequences, sorted by name; InputError if there is none."""
    folders = _raw_drives(root) if layout == "raw" else _sequences(root)
    if not folders:
        what = "DATE/DATE_drive_NNNN_sync" if layout == "raw" else "sequences/NN"
        raise InputError(f"{root}: no KITTI {layout} in it, expected folders {what}")
    return folders


def _raw_drives(root: Path) -> list[Path]:
    return [drive for date in _subfolders(root, _DATE) for drive in _subfolders(date, _DRIVE)]


def _sequences(root: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for base in _odometry_bases(root):
        if (base / "sequences").is_dir():
            for sequence in _subfolders(base / "sequences", _SEQUENCE):
                found.setdefault(str(sequence.name), sequence)
    return [found[name] for name in sorted(found)]


def _odometry_bases(root: Path) -> tuple[Path, Path]:
    return Path(root), Path(root) / "dataset"


def _subfolders(folder: Path, pattern: re.Pattern) -> list[Path]:
    """The folders with such names, sorted; InputError for a dangling link or a file of such a name."""
    folders = [Path(folder) / name for name in sorted(os.listdir(folder)) if pattern.fullmatch(name)]
    for path in folders:
        if not path.is_dir():
            raise InputError(f"{path}: cannot be opened as a folder (a dangling link?); repair it or remove it")
    return folders


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    """The files 000123.SUFFIX or frame123.SUFFIX of a folder, by number, ascending; empty without such a folder.

    A name has one run of digits, at its end. If names differ in their suffix only, the suffix that comes first in
    `suffixes` is taken. Names that begin with a dot are left out: macOS writes a ._000000.png for each file on some
    disks.

    Raises:
        InputError: two names have the same number, such as left1.png and right1.png.
    """
    if not os.path.isdir(folder):
        return {}
    names: dict[int, str] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        match = _NUMBERED.fullmatch(stem)
        if not match or suffix.lower() not in suffixes or name.startswith("."):
            continue
        number = int(match[1])
        other = names.setdefault(number, name)
        if os.path.splitext(other)[0] != stem:
            raise InputError(f"{folder}: {other} and {name} are both number {number}, expected one file for a number")
        names[number] = min(other, name, key=lambda name: suffixes.index(os.path.splitext(name)[1].lower()))
    return {number: Path(folder) / names[number] for number in sorted(names)}


def frame_number(name: str) -> int:
    """The number at the end of an image's name, without its suffix; InputError if there is none."""
    match = _NUMBERED.fullmatch(os.path.splitext(os.path.basename(name))[0])
    if not match:
        raise InputError(f"{name}: no frame number, expected a name such as 0000000069.png")
    return int(match[1])


# Recordings


def find_recordings(drive: Path, layout: str, cameras: Iterable[str] | None) -> list[Recording]:
    """The recordings of a drive's cameras, for those that have images.

    Args:
        drive: the folder of a drive (raw) or sequence (odometry).
        layout: one of LAYOUTS.
        cameras: "00" to "03"; None takes the colour ones, or the grey ones where there is no colour.
    """
    if cameras is None:
        return find_recordings(drive, layout, COLOUR_CAMERAS) or find_recordings(drive, layout, GREY_CAMERAS)
    scans = numbered_files(drive / ("velodyne_points/data" if layout == "raw" else "velodyne"), (".bin",))
    packets = numbered_files(drive / "oxts/data", (".txt",)) if layout == "raw" else {}
    poses_file = None
    if layout == "odometry":
        base = drive.parent.parent
        file = pose_file(base, str(drive.name))
        if base.name == "dataset" and not os.path.lexists(file):
            file = pose_file(base.parent, str(drive.name))
        poses_file = file if os.path.lexists(file) else None
    recordings = []
    for camera in dict.fromkeys(cameras):
        images = numbered_files(drive / _image_folder(layout, camera), IMAGE_SUFFIXES)
        if images:
            name = str(drive.name)
            recordings.append(Recording(layout, name, drive, camera, images, scans, packets, poses_file))
    return recordings


def _image_folder(layout: str, camera: str) -> str:
    return f"image_{camera}/data" if layout == "raw" else f"image_{int(camera)}"


def find_sequence(root: Path, name: str) -> Recording:
    """The left camera of an odometry sequence with all its frames: colour, or grey where there is no colour.

    Raises:
        InputError: no such sequence; no images; a frame is missing between others; not as many images as poses.
    """
    folder = sequence_folder(root, name)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such sequence")
    recordings = find_recordings(folder, "odometry", ["02"]) or find_recordings(folder, "odometry", ["00"])
    if not recordings:
        raise InputError(f"{folder}: no images in image_2 (colour) or image_0 (grey)")
    recording = recordings[0]
    images = next(iter(recording.images.values())).parent
    missing = number_gaps(recording.images)
    if missing:
        raise InputError(f"{images}: {describe_gap(*missing[0])}, expected one for each frame of the sequence")
    if recording.poses_file is not None:
        count = len(kitti.read_poses(recording.poses_file))
        if len(recording.images) != count:
            raise InputError(f"{recording.poses_file}: {count} poses for {len(recording.images)} images in {images}")
    return recording


def sequence_folder(root: Path, name: str) -> Path:
    """The folder of an odometry sequence, in `sequences/` or `dataset/sequences/`; in the former if in neither."""
    return _first_there([base / "sequences" / name for base in _odometry_bases(root)])


def pose_file(root: Path, name: str) -> Path:
    """The ground truth of an odometry sequence, in `poses/` or `dataset/poses/`; in the former if in neither."""
    return _first_there([folder / f"{name}.txt" for folder in pose_folders(root)])


def pose_folders(root: Path) -> list[Path]:
    """The folders in which the ground truth of odometry sequences is looked for, whether they are there or not."""
    return [base / "poses" for base in _odometry_bases(root)]


def is_sequence_file(file: Path) -> bool:
    """Whether a file is named as the ground truth of an odometry sequence: 00.txt."""
    return file.suffix == ".txt" and _SEQUENCE.fullmatch(file.stem) is not None


def has_ground_truth(root: Path, name: str) -> bool:
    """Whether an odometry sequence has poses, as 00 to 10 have and 11 to 21 do not.

    Raises:
        InputError: there is neither a file of poses nor a folder of the sequence.
    """
    file, folder = pose_file(root, name), sequence_folder(root, name)
    if not os.path.lexists(file) and not folder.is_dir():
        raise InputError(f"{file}: no such file, and no sequence {folder}")
    return os.path.lexists(file)


def _first_there(places: list[Path]) -> Path:
    return next((place for place in places if os.path.lexists(place)), places[0])


# Lists of images and drives


def read_image_list(file: Path, root: Path) -> list[str]:
    """The images of a list, as paths relative to KITTI raw with slashes: DATE/DRIVE/image_02/data/0000000069.png.

    A line is a path (`datasets.layout.read_paths` says in which forms) or `DATE/DRIVE FRAME l` (or r), as monodepth2's
    lists have it.

    Args:
        root: the folder that the paths are relative to.

    Raises:
        InputError: an empty list, an image twice, a line that is neither form, a path that leads out of `root`.
    """
    names = []
    for line in read_paths(file, root):
        folder, *frame_and_side = line.rsplit(maxsplit=2)
        if len(frame_and_side) == 2 and frame_and_side[0].isdecimal() and frame_and_side[1] in _SIDES:
            names.append(f"{folder}/{_SIDES[frame_and_side[1]]}/data/{int(frame_and_side[0]):010d}.png")
        elif is_image_name(os.path.basename(line)) or not frame_and_side:
            names.append(line)
        else:
            raise InputError(f"{file}: {line!r:.100} is not an image's path nor 'DATE/DRIVE FRAME l' (or r)")
    if not names:
        raise InputError(f"{file}: the list is empty, expected the path of an image on each line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file}: lists {twice:.100} twice, expected each image once")
    return names


def find_image(root: Path, name: str) -> Path:
    """The file of a listed image: `root / name`, or if that is missing, the same name with another image suffix.

    The field's lists name PNGs, and many people convert KITTI to JPEG, as monodepth2's README advises. If there is no
    such file either, the result is `root / name`.
    """
    listed = Path(root) / name
    stem = os.path.splitext(listed)[0]
    others = [Path(stem + suffix) for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper())]
    return next((file for file in (listed, *others) if file.is_file()), listed)


def describe_conversion(root: Path, names: Iterable[str]) -> str:
    """The number of images that are read from files with another suffix than listed, in words; "" for none."""
    changed = [(os.path.splitext(name)[1], find_image(root, name).suffix) for name in names]
    kinds = dict.fromkeys(pair for pair in changed if pair[0] != pair[1])
    return ", ".join(f"{changed.count(kind)} images read as {kind[1]}, not as {kind[0]}" for kind in kinds)


def read_drive_list(file: Path, root: Path) -> set[str]:
    """The drives of a list, DATE_drive_NNNN: one a line, with or without DATE/, `_sync`, and a camera (`_02`).

    Raises:
        InputError: a line that names no drive.
    """
    drives = set()
    for line in read_paths(file, root):
        match = _DRIVE_OR_SCENE.fullmatch(line.rpartition("/")[2])
        if not match:
            raise InputError(f"{file}: {line!r:.100} names no drive, expected DATE_drive_NNNN")
        drives.add(match[1])
    return drives


# Calibration and poses


@dataclass(frozen=True)
class Calibration:
    """The calibration of a rectified camera."""

    projection: np.ndarray  # [3, 4], in pixels of the images: K [I | t], from the rectified frame of camera 0
    camera_from_imu: np.ndarray | None  # [4, 4], raw only
    cam_to_cam: dict[str, np.ndarray]  # as `kitti.lidar_depth_map` takes it
    velo_to_cam: np.ndarray | None  # [4, 4]


def read_calibration(recording: Recording, need_lidar: bool, need_imu: bool) -> Calibration:
    """Calibration of a recording's camera; InputError if a file that is needed is missing or damaged.

    Odometry's files lack the size of the images (S_rect): callers that map LiDAR points add it.
    """
    if recording.layout == "odometry":
        return _read_odometry_calibration(recording, need_lidar)
    date, camera = recording.folder.parent, recording.camera
    cam_to_cam = kitti.read_raw_calibration(date, camera)
    if not need_lidar and not need_imu:
        return Calibration(cam_to_cam[f"P_rect_{camera}"], None, cam_to_cam, None)
    velo_to_cam = kitti.read_rigid_calibration(date / "calib_velo_to_cam.txt")
    camera_from_imu = None
    if need_imu:
        velo_from_imu = kitti.read_rigid_calibration(date / "calib_imu_to_velo.txt")
        camera_from_imu = kitti.camera_from_velodyne(cam_to_cam, velo_to_cam, camera) @ velo_from_imu
    return Calibration(cam_to_cam[f"P_rect_{camera}"], camera_from_imu, cam_to_cam, velo_to_cam if need_lidar else None)


def _read_odometry_calibration(recording: Recording, need_lidar: bool) -> Calibration:
    file, key = recording.folder / "calib.txt", f"P{int(recording.camera)}"
    matrices = kitti.read_odometry_calibration(file)
    for needed in [key, "Tr"] if need_lidar else [key]:
        if needed not in matrices:
            raise InputError(f"{file}: no line '{needed}: ...', needed for {recording.scene}")
    cam_to_cam = {"R_rect_00": np.eye(3), f"P_rect_{recording.camera}": matrices[key]}
    return Calibration(matrices[key], None, cam_to_cam, to_homogeneous(matrices["Tr"]) if need_lidar else None)


def read_seconds(recording: Recording) -> dict[int, float]:
    """Times of a recording's frames in seconds, by frame: of timestamps.txt (raw) or times.txt (odometry).

    Frames without a time are left out. Few uses need times, so a file that is missing or damaged gives none.
    """
    try:
        if recording.layout == "raw":
            file = recording.folder / f"image_{recording.camera}/timestamps.txt"
            stamps = kitti.read_timestamps(file)
            seconds, first = (stamps - np.datetime64(0, "ns")) / np.timedelta64(1, "s"), 0
        else:
            seconds = kitti.read_times(recording.folder / "times.txt")
            first = _frame_of_first_line(recording.images, len(seconds))
    except (InputError, OSError):
        return {}
    found = {frame: float(seconds[frame - first]) for frame in recording.images if 0 <= frame - first < len(seconds)}
    return {frame: second for frame, second in found.items() if np.isfinite(second)}


def read_packets(recording: Recording) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The OXTS packets [30] of a recording's frames, and by frame what is wrong with the missing and damaged ones."""
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
    """world_from_camera [4, 4] by frame, metres, and by frame what is wrong with those that have none.

    The world is any fixed frame: `geometry.rigid.relative_to_first` makes it the first camera. Poses come from the
    packets where the calibration has the IMU's, else from the poses file.
    """
    if calibration.camera_from_imu is not None:
        if not packets:
            return {}, {}
        world_from_imu = kitti.oxts_to_poses(np.stack(list(packets.values())))
        imu_from_camera = invert(calibration.camera_from_imu)
        return {frame: pose @ imu_from_camera for frame, pose in zip(packets, world_from_imu, strict=True)}, {}
    if recording.poses_file is None:
        return {}, {}
    rows = kitti.read_poses(recording.poses_file)
    rigid = is_rotation(rows[:, :, :3])
    if not rigid.all():
        raise InputError(f"{recording.poses_file}, line {np.argmin(rigid) + 1}: the 3 x 3 part is no rotation")
    world_from_rectified = to_homogeneous(rows)
    rectified_from_camera = invert(kitti.camera_from_rectified(calibration.projection))
    first = _frame_of_first_line(recording.images, len(rows))
    poses = {
        f: world_from_rectified[f - first] @ rectified_from_camera for f in recording.images if f - first < len(rows)
    }
    missing = f"{recording.poses_file}: {len(rows)} lines, none for frame "
    return poses, {frame: f"{missing}{frame}" for frame in recording.images if frame not in poses}


def _frame_of_first_line(frames: Iterable[int], count: int) -> int:
    """The number of the frame that the first of `count` lines of a file of poses or times belongs to.

    KITTI numbers frames from 0. Where frames were renumbered (from 1, or as part of a longer recording), the lines are
    as many as the numbers from the first frame to the last.
    """
    first, last = min(frames), max(frames)
    return first if last - first + 1 == count else 0
