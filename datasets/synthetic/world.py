"""The synthetic world on disk, in the layouts of KITTI raw data and KITTI odometry.

FOLDER/world.json                                   the options it was made with
FOLDER/raw/DATE/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
FOLDER/raw/DATE/DATE_drive_NNNN_sync/image_02/data/NNNNNNNNNN.png      (image_03 likewise), timestamps.txt
                                    /velodyne_points/data/NNNNNNNNNN.bin
                                    /oxts/data/NNNNNNNNNN.txt
                                    /proj_depth/groundtruth/image_02/NNNNNNNNNN.png     (on request)
FOLDER/odometry/sequences/NN/{image_2,image_3}/NNNNNN.png, calib.txt, times.txt;  FOLDER/odometry/poses/NN.txt
FOLDER/splits/{train,val,test}_scenes.txt, test_files.txt
"""

import errno
import json
import os
import shutil
from dataclasses import asdict

from path import Path
from tqdm import tqdm

from datasets.synthetic.drive_files import UNFINISHED, link_sequence, render_drive
from datasets.synthetic.kitti_text import write_calibration, write_splits
from datasets.synthetic.options import Drive, WorldOptions, list_drives, read_options
from datasets.synthetic.output import write_text
from datasets.synthetic.parallel import render_in_parallel
from datasets.synthetic.sensors import LIDAR_AZIMUTHS, LIDAR_ELEVATIONS
from files.atomic import is_leftover
from files.errors import InputError, WriteError
from files.lock import hold

OPTIONS_FILE = "world.json"
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_world(
    folder: str, options: WorldOptions, *, jobs: int = 1, device: str = "cpu", progress: bool = False
) -> list[Drive]:
    """Make a world, or the drives that an unfinished world lacks. Existing drives are not changed.

    Args:
        folder: a new or empty folder, or that of an unfinished world of the same options.
        jobs: processes, each of which renders one drive at a time; the bytes do not depend on it. A GPU is used by one
            process.
        device: where colours are computed. Another device may round a few colours differently.
        progress: show a progress bar.

    Returns:
        All drives of the world.

    Raises:
        InputError: options that no world can be made with, a folder with other contents, or too little disk space.
        WriteError: a file could not be written, for example because the disk is full. The error names the file.
    """
    options.check()
    folder = Path(folder)
    _check_folder(folder, options)
    drives = list_drives(options)
    _check_disk_space(folder, options, sum(not _is_rendered(folder, options, drive) for drive in drives))
    folder.makedirs_p()
    try:
        with hold(folder):
            _write_missing(folder, options, drives, jobs, device, progress)
    except (OSError, WriteError) as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        advice = "complete drives are kept; with more disk space the same command continues"
        raise WriteError(f"{_describe(error)}; {advice}", error.errno) from None
    return drives


def _describe(error: OSError | WriteError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def _write_missing(
    folder: Path, options: WorldOptions, drives: list[Drive], jobs: int, device: str, progress: bool
) -> None:
    """Write all that the world's folder lacks."""
    missing = [drive for drive in drives if not _is_rendered(folder, options, drive)]
    write_text(folder / OPTIONS_FILE, json.dumps(asdict(options), indent=2) + "\n")
    (folder / UNFINISHED).rmtree_p()
    try:
        for drive in drives:
            write_calibration(folder / "raw" / drive.date, drive, options)
        with tqdm(
            total=len(drives) * options.frames,
            initial=(len(drives) - len(missing)) * options.frames,
            unit="frame",
            disable=not progress,
            desc="rendering",
        ) as bar:
            if jobs == 1 or len(missing) < 2 or device != "cpu":
                for drive in missing:
                    render_drive(folder, options, drive, device, bar.update)
            else:
                render_in_parallel(folder, options, missing, min(jobs, len(missing)), bar)
        for drive in drives:
            if drive.sequence is not None:
                link_sequence(folder, options, drive, drive.sequence)
        write_splits(folder / "splits", options, drives)
    finally:
        (folder / UNFINISHED).rmtree_p()


def _check_folder(folder: Path, options: WorldOptions) -> None:
    """InputError unless the folder is new, empty, or an unfinished world of these options."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for the world")
    # What a world that was stopped at its first file leaves is as good as empty.
    leftovers = {UNFINISHED, ".lock"}
    if not folder.exists() or all(name in leftovers or is_leftover(name) for name in os.listdir(folder)):
        return
    file = folder / OPTIONS_FILE
    if not file.exists():
        raise InputError(f"{folder}: has other contents, expected a new or empty folder, or an unfinished world")
    stored, wanted = asdict(read_options(file)), asdict(options)
    differ = [name for name in wanted if stored[name] != wanted[name]]
    if differ:
        found = ", ".join(f"{name} {stored[name]} (now {wanted[name]})" for name in differ)
        raise InputError(f"{folder}: holds a world of other options: {found}; take those, or another folder")


def _is_rendered(folder: Path, options: WorldOptions, drive: Drive) -> bool:
    """Whether a drive is complete; InputError if images of it were removed or added since."""
    images = folder / "raw" / drive.name / "image_02" / "data"
    if not (folder / "raw" / drive.name).exists():
        return False
    count = len(images.files("*.png")) if images.is_dir() else 0
    if count != options.frames:
        raise InputError(
            f"{images}: {count} images, expected the {options.frames} that were rendered; remove {drive.scene}_sync, "
            "and the same command renders it again"
        )
    return True


def _check_disk_space(folder: Path, options: WorldOptions, drives: int) -> None:
    """InputError if the disk has clearly too little space for so many drives, estimated from typical picture sizes."""
    pixels = options.width * options.height
    cameras = 1 + options.stereo
    frame = pixels * 2.2 * cameras + pixels * 1.5 * options.dense_depth * cameras
    scan = len(LIDAR_ELEVATIONS) * len(LIDAR_AZIMUTHS) * 16
    needed = drives * options.frames * (frame + scan / options.scan_every)
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"{folder}: too little disk space for {drives} drives of {options.frames} frames: about "
            f"{needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; take fewer drives or frames, or "
            "another disk"
        )
