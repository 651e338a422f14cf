"""The synthetic world on disk, in the layouts of KITTI raw data and KITTI odometry.

    FOLDER/world.json                                   the options it was made with
    FOLDER/raw/DATE/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
    FOLDER/raw/DATE/DATE_drive_NNNN_sync/image_02/data/NNNNNNNNNN.png      (image_03 likewise), timestamps.txt
                                        /velodyne_points/data/NNNNNNNNNN.bin
                                        /oxts/data/NNNNNNNNNN.txt
                                        /proj_depth/groundtruth/image_02/NNNNNNNNNN.png     (on request)
    FOLDER/odometry/sequences/NN/{image_2,image_3}/NNNNNN.png, calib.txt, times.txt;  FOLDER/odometry/poses/NN.txt
    FOLDER/splits/{train,val,test}_scenes.txt, test_files.txt

A drive is rendered in FOLDER/.unfinished and moved to its place when it is whole.
"""

import contextlib
import datetime
import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass

import imageio.v3 as iio
import numpy as np
import torch
from path import Path
from tqdm import tqdm

from datasets.layout import write_text
from datasets.synthetic.render import Renderer
from datasets.synthetic.scene import BASELINE, FRAME_TIME, Scene, make_scene
from datasets.synthetic.textures import make_textures
from files.errors import InputError
from files.lock import hold
from files.workers import end_with_parent

SMALLEST, LARGEST = 32, 4096  # pixels along a side
FIRST_YEAR = 2026  # of seed 0
DEPTH_UNIT = 256  # a depth picture's numbers a metre, as in KITTI's own annotation
BEAMS = np.radians(np.linspace(2.0, -24.8, 64))  # elevations of the Velodyne HDL-64E
TURN = np.radians(np.arange(-180, 180, 0.25))  # its azimuths
EARTH_RADIUS = 6378137.0  # as in KITTI's development kit
LATITUDE, LONGITUDE, ALTITUDE = 49.0, 8.4, 115.0  # where a drive begins


@dataclass(frozen=True)
class WorldOptions:
    """What the world is made from: the same options give the same bytes."""

    drives: int = 8
    frames: int = 60  # of each drive
    width: int = 416
    height: int = 128
    seed: int = 0
    stereo: bool = True  # image_03 beside image_02
    moving_cars: float = 0.0  # share of the drives in which other cars move, spread evenly
    halts: bool = True  # the car stops now and then, in drives of 40 frames and more: static frames
    exposure_changes: bool = False  # the camera's gain jumps from frame to frame
    vary_focal: bool = False  # another focal length, and so another DATE folder, for each drive
    dense_depth: bool = False  # true depth of every pixel beside the images
    scan_every: int = 4  # frames from one LiDAR scan to the next
    jitter: float = 0.25  # standard deviation of pitch and roll, degrees

    def check(self) -> None:
        """InputError unless a world can be made of these."""
        if self.drives < 1:
            raise InputError(f"drives: got {self.drives}, expected 1 or more")
        if self.drives > 9000:
            raise InputError(f"drives: got {self.drives}, expected at most 9000 (KITTI's names have four digits)")
        if not 3 <= self.frames <= 100000:
            raise InputError(f"frames: got {self.frames} a drive, expected 3 (one snippet) to 100000")
        for name, size in (("width", self.width), ("height", self.height)):
            if not SMALLEST <= size <= LARGEST:
                raise InputError(f"{name}: got {size}, the renderer can do {SMALLEST} to {LARGEST} pixels")
        if not 0 <= self.moving_cars <= 1:
            raise InputError(f"moving cars: got a share of {self.moving_cars:g} of the drives, expected 0 to 1")
        if 0 < self.moving_cars * self.drives < 1 - 1e-9:
            raise InputError(
                f"moving cars: got a share of {self.moving_cars:g} of {self.drives} drives, less than one drive; "
                f"expected 0, or {1 / self.drives:.3g} and more"
            )
        if self.scan_every < 1:
            raise InputError(f"scan every: got {self.scan_every} frames, expected 1 or more")
        if not 0 <= self.jitter <= 2:
            raise InputError(f"jitter: got {self.jitter:g} degrees, expected 0 to 2")
        if self.seed < 0:
            raise InputError(f"seed: got {self.seed}, expected 0 or more")


@dataclass(frozen=True)
class Drive:
    """One drive of a world: its names on disk and its camera."""

    number: int  # from 1 on
    date: str
    split: str  # train, val or test
    sequence: str | None  # its number among the odometry sequences; None: it is not one of them
    intrinsics: np.ndarray  # [3, 3], both cameras
    moving_cars: bool

    @property
    def day(self) -> datetime.datetime:
        return datetime.datetime.strptime(self.date, "%Y_%m_%d")

    @property
    def scene(self) -> str:
        return f"{self.date}_drive_{self.number:04d}"

    @property
    def name(self) -> str:
        return f"{self.date}/{self.scene}_sync"


def list_drives(options: WorldOptions) -> list[Drive]:
    """The world's drives: the last fifth for testing, the tenth before for validation, at least one each of three.

    Odometry sequences as KITTI has them: training (then validation) drives are 00 to 08, test drives 09 to 21.
    """
    count = options.drives
    test = max(1, count // 5) if count > 1 else 0
    val = max(1, count // 10) if count > 2 else 0
    drives = []
    for k in range(count):
        split = "train" if k < count - test - val else "val" if k < count - test else "test"
        number = 9 + k - (count - test) if split == "test" else k
        sequence = f"{number:02d}" if number <= (21 if split == "test" else 8) else None
        focal = 0.581 * options.width  # KITTI's field of view
        date = datetime.date(FIRST_YEAR + options.seed % 7000, 1, 1)  # so that a drive's name tells worlds apart
        if options.vary_focal:
            focal *= np.random.default_rng([options.seed, k + 1, 2]).uniform(0.8, 1.25)
            date += datetime.timedelta(days=k)
        centre = 0.5 * options.width + 0.004 * options.width - 0.5, 0.46 * options.height - 0.5
        intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
        moving = int((k + 1) * options.moving_cars + 1e-9) > int(k * options.moving_cars + 1e-9)
        drives.append(Drive(k + 1, date.strftime("%Y_%m_%d"), split, sequence, intrinsics, moving))
    return drives


def make_drive_scene(options: WorldOptions, drive: Drive) -> Scene:
    """The scene of a drive, from the world's seed and the drive's number alone."""
    return make_scene(
        np.random.default_rng([options.seed, drive.number, 0]),
        options.frames,
        moving_cars=drive.moving_cars,
        halts=options.halts,
        exposure_changes=options.exposure_changes,
        jitter=options.jitter,
    )


def make_drive_renderer(options: WorldOptions, drive: Drive, device: str = "cpu") -> Renderer:
    """The drive's scene with its textures, ready to be rendered."""
    textures = make_textures(np.random.default_rng([options.seed, drive.number, 1]))
    return Renderer(make_drive_scene(options, drive), textures, device)


def write_world(
    folder: str, options: WorldOptions, *, jobs: int = 1, device: str = "cpu", progress: bool = False
) -> list[Drive]:
    """Make a world, or the drives that a world still lacks; nothing that is there is touched.

    Args:
        folder: a new or empty folder, or that of the same world begun before.
        jobs: processes, a drive each; the bytes do not depend on it. A CUDA device is used by one process.
        device: where rays are cast. Another device may round a few colours differently.
        progress: show a bar.

    Raises:
        InputError: options that no world can be made of, a folder with something else in it, no room on the disk.
        OSError: the disk got full meanwhile, or could not be written.
    """
    options.check()
    folder = Path(folder)
    _check_folder(folder, options)
    drives = list_drives(options)
    _check_room(folder, options, sum(not _is_there(folder, options, drive) for drive in drives))
    folder.makedirs_p()
    try:
        with hold(folder):
            _write_missing(folder, options, drives, jobs, device, progress)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        kept = "the drives that are whole are kept, and with more room the same command goes on"
        raise OSError(error.errno, f"{os.strerror(error.errno)}; {kept}", str(folder)) from None
    return drives


def _write_missing(
    folder: Path, options: WorldOptions, drives: list[Drive], jobs: int, device: str, progress: bool
) -> None:
    """Everything that the world's folder lacks."""
    missing = [drive for drive in drives if not _is_there(folder, options, drive)]
    _write_text(folder / "world.json", json.dumps(asdict(options), indent=2) + "\n")
    (folder / ".unfinished").rmtree_p()
    for drive in drives:
        _write_calibration((folder / "raw" / drive.date).makedirs_p(), drive, options)
    bar = tqdm(
        total=len(drives) * options.frames,
        initial=(len(drives) - len(missing)) * options.frames,
        unit="frame",
        disable=not progress,
        desc="rendering",
    )
    try:
        with bar:
            if jobs == 1 or len(missing) < 2 or device != "cpu":
                for drive in missing:
                    _render_drive(folder, options, drive, device, bar.update)
            else:
                _render_in_parallel(folder, options, missing, min(jobs, len(missing)), bar)
        for drive in drives:
            if drive.sequence is not None:
                _write_sequence(folder, options, drive, drive.sequence)
        _write_splits(folder / "splits", options, drives)
    finally:
        (folder / ".unfinished").rmtree_p()


# ----------------------------------------------------------------------------------------------- before it begins


def _check_folder(folder: Path, options: WorldOptions) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for the world")
    # What a world that was stopped at its very first file leaves is none of anybody else's.
    if not folder.exists() or not set(os.listdir(folder)) - {"world.json.part", ".unfinished", ".lock"}:
        return
    file = folder / "world.json"
    if not file.exists():
        raise InputError(f"{folder}: holds something else, expected a new or empty folder, or a world begun before")
    try:
        stored = json.loads(file.read_text())
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise InputError(f"{file}: does not hold a world's options; take another folder or remove this one")
    wanted = asdict(options)
    differ = [name for name in wanted if stored.get(name) != wanted[name]]
    if differ:
        found = ", ".join(f"{name} {stored.get(name)} (now {wanted[name]})" for name in differ)
        raise InputError(f"{folder}: a world of other options is there: {found}; take those, or another folder")


def _is_there(folder: Path, options: WorldOptions, drive: Drive) -> bool:
    """Whether a drive was rendered before; InputError if somebody has changed it since."""
    images = folder / "raw" / drive.name / "image_02" / "data"
    if not (folder / "raw" / drive.name).exists():
        return False
    count = len(images.files("*.png")) if images.is_dir() else 0
    if count != options.frames:
        raise InputError(
            f"{images}: {count} images, expected the {options.frames} that were rendered; remove {drive.scene}_sync, "
            "and the same command renders it anew"
        )
    return True


def _check_room(folder: Path, options: WorldOptions, drives: int) -> None:
    """InputError if the disk has clearly too little room; the estimate is the size of usual pictures."""
    pixels = options.width * options.height
    frame = pixels * 2.2 * (2 if options.stereo else 1) + pixels * 1.5 * options.dense_depth * (1 + options.stereo)
    need = drives * options.frames * (frame + len(BEAMS) * len(TURN) * 16 / options.scan_every)
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if need > free:
        raise InputError(
            f"{folder}: no room for {drives} drives of {options.frames} frames: about {need / 1e6:,.0f} MB are needed, "
            f"{free / 1e6:,.0f} MB are free; take fewer drives or frames, or another disk"
        )


# ----------------------------------------------------------------------------------------------------- rendering

_frames_done = None  # in a worker process: the counter that all of them share


def _render_in_parallel(folder: Path, options: WorldOptions, drives: list[Drive], jobs: int, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    counter, begun = context.Value("q", 0), bar.n
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(counter,))
    try:
        with _without_interrupt():
            waiting = {pool.submit(_render_drive, folder, options, drive) for drive in drives}
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
            if counter.value > bar.n - begun:
                bar.update(counter.value - (bar.n - begun))
            for future in done:
                future.result()
    except BrokenProcessPool:
        raise InputError(
            f"{folder}: a rendering process was ended from outside, perhaps for lack of memory; "
            f"start again with fewer --jobs than {jobs}, what is done is kept"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def _without_interrupt():
    """Processes started meanwhile never hear of Ctrl-C: their parent does, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(counter) -> None:
    global _frames_done
    _frames_done = counter
    end_with_parent()


def _count_frame() -> None:
    if _frames_done is not None:
        with _frames_done.get_lock():
            _frames_done.value += 1


def _render_drive(folder: Path, options: WorldOptions, drive: Drive, device: str = "cpu", count=_count_frame) -> None:
    """Write one drive of the raw layout."""
    unfinished = folder / ".unfinished" / drive.scene
    unfinished.makedirs_p()
    with _one_thread():
        renderer = make_drive_renderer(options, drive, device)
        for frame in range(options.frames):
            _render_frame(unfinished, options, drive, renderer, frame)
            count()
    _write_oxts(unfinished / "oxts", renderer.scene.world_from_camera)
    start = drive.day + datetime.timedelta(hours=8, minutes=5 * drive.number)
    for sensor in ("image_02", "image_03", "velodyne_points", "oxts"):
        if (unfinished / sensor).exists():
            for name in ("timestamps", "timestamps_start", "timestamps_end"):
                if name == "timestamps" or sensor == "velodyne_points":
                    shift = {"timestamps": 0.0, "timestamps_start": -0.05, "timestamps_end": 0.05}[name]
                    _write_time_stamps(unfinished / sensor / f"{name}.txt", start, shift, options.frames)
    os.rename(unfinished, folder / "raw" / drive.name)


@contextlib.contextmanager
def _one_thread():
    """Sums and vector instructions that do not depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _render_frame(folder: Path, options: WorldOptions, drive: Drive, renderer: Renderer, frame: int) -> None:
    size = drive.intrinsics, options.height, options.width
    world_from_camera = renderer.scene.world_from_camera[frame]
    for camera, offset in (("image_02", 0.0), ("image_03", BASELINE)):
        if camera == "image_03" and not options.stereo:
            continue
        pose = world_from_camera.copy()
        pose[:3, 3] += offset * pose[:3, 0]
        name = f"{frame:010d}.png"
        image = renderer.image(frame, *size, pose)
        iio.imwrite((folder / camera / "data").makedirs_p() / name, image, compress_level=3)
        if options.dense_depth:
            depth = np.round(renderer.depth(frame, *size, pose) * DEPTH_UNIT)
            depth = np.where(depth < 2**16, depth, 0).astype(np.uint16)
            iio.imwrite((folder / "proj_depth" / "groundtruth" / camera).makedirs_p() / name, depth, compress_level=3)
    if frame % options.scan_every == 0:
        points = renderer.scan(frame, world_from_camera @ camera_from_velodyne(), BEAMS, TURN)
        ((folder / "velodyne_points" / "data").makedirs_p() / f"{frame:010d}.bin").write_bytes(points.tobytes())


# ---------------------------------------------------------------------------------------------- KITTI's text files


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rz Ry Rx of three angles in degrees."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(np.radians([x, y, z])), np.cos(np.radians([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


# How the sensors sit on the car: a little askew, as on KITTI's, so that no rotation can be forgotten unnoticed.
RECTIFICATION = _rotation(0.25, -0.4, 0.55)  # R_rect_00
CAMERA_AXES_FROM_VELODYNE = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
VELODYNE_TO_CAMERA = _rotation(-0.35, 0.45, -0.6) @ CAMERA_AXES_FROM_VELODYNE, np.array([-0.004, -0.076, -0.27])
IMU_TO_VELODYNE = _rotation(0.85, 0.12, -0.05), np.array([-0.81, 0.32, -0.8])


def _transform(rotation: np.ndarray, translation) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return transform


def camera_from_velodyne() -> np.ndarray:
    """[4, 4] from LiDAR points to the left rectified camera (00 and 02), as the calibration files say it."""
    return _transform(RECTIFICATION, 0) @ _transform(*VELODYNE_TO_CAMERA)


def camera_from_imu() -> np.ndarray:
    """[4, 4] from the OXTS unit's frame (x forward, y left, z up) to the left rectified camera."""
    return camera_from_velodyne() @ _transform(*IMU_TO_VELODYNE)


def _projection(intrinsics: np.ndarray, offset: float) -> np.ndarray:
    """P = K [I | (-offset, 0, 0)] of a camera so far to the right of camera 00."""
    return intrinsics @ np.array([[1, 0, 0, -offset], [0, 1, 0, 0], [0, 0, 1, 0]])


def _write_calibration(folder: Path, drive: Drive, options: WorldOptions) -> None:
    size, intrinsics = [options.width, options.height], drive.intrinsics
    lines = [("calib_time", f"{drive.day:%d-%b-%Y %H:%M:%S}"), ("corner_dist", _row([0.0995]))]
    # Grey and colour cameras of a side are one: 00 = 02 on the left, 01 = 03 on the right.
    for camera, offset in (("00", 0.0), ("01", BASELINE), ("02", 0.0), ("03", BASELINE)):
        lines += [
            (f"S_{camera}", _row(size)),
            (f"K_{camera}", _row(intrinsics)),
            (f"D_{camera}", _row(np.zeros(5))),
            (f"R_{camera}", _row(np.eye(3))),
            (f"T_{camera}", _row(-RECTIFICATION.T @ [offset, 0, 0])),
            (f"S_rect_{camera}", _row(size)),
            (f"R_rect_{camera}", _row(RECTIFICATION)),
            (f"P_rect_{camera}", _row(_projection(intrinsics, offset))),
        ]
    files = {"cam_to_cam": lines}
    for name, (rotation, translation) in (("velo_to_cam", VELODYNE_TO_CAMERA), ("imu_to_velo", IMU_TO_VELODYNE)):
        files[name] = [lines[0], ("R", _row(rotation)), ("T", _row(translation))]
    files["velo_to_cam"] += [("delta_f", _row([0, 0])), ("delta_c", _row([0, 0]))]
    for name, content in files.items():
        _write_text(folder / f"calib_{name}.txt", "".join(f"{key}: {value}\n" for key, value in content))


def _row(numbers) -> str:
    return " ".join(f"{number:.12e}" for number in np.asarray(numbers, float).ravel())


def _write_time_stamps(file: Path, start: datetime.datetime, shift: float, frames: int) -> None:
    times = [start + datetime.timedelta(seconds=shift + FRAME_TIME * frame) for frame in range(frames)]
    _write_text(file, "".join(f"{time:%Y-%m-%d %H:%M:%S.%f}000\n" for time in times))


def _write_oxts(folder: Path, world_from_camera: np.ndarray) -> None:
    """A packet of 30 numbers a frame, such that KITTI's formula (Mercator projection) gives the poses back."""
    world_from_imu = world_from_camera @ camera_from_imu()
    rotation, position = world_from_imu[:, :3, :3], world_from_imu[:, :3, 3]
    scale = np.cos(np.radians(LATITUDE))  # of the drive's first packet
    metres = scale * EARTH_RADIUS
    east, north = (position[:, :2] - position[0, :2]).T
    longitude = LONGITUDE + np.degrees(east / metres)
    start = np.log(np.tan(np.radians(90 + LATITUDE) / 2))
    latitude = np.degrees(2 * np.arctan(np.exp(start + north / metres))) - 90
    altitude = ALTITUDE + position[:, 2]
    roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    pitch = -np.arcsin(rotation[:, 2, 0])
    yaw = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    velocity = np.gradient(position, FRAME_TIME, axis=0)
    acceleration = np.gradient(velocity, FRAME_TIME, axis=0) + [0, 0, 9.81]
    turning = np.stack([np.gradient(np.unwrap(angle), FRAME_TIME) for angle in (roll, pitch, yaw)], -1)
    data = (folder / "data").makedirs_p()
    for frame in range(len(position)):
        forward, left, up = rotation[frame].T @ velocity[frame]
        body = rotation[frame].T @ acceleration[frame]
        packet = [latitude[frame], longitude[frame], altitude[frame], roll[frame], pitch[frame], yaw[frame]]
        packet += [velocity[frame, 1], velocity[frame, 0], forward, left, up]  # north, east, and the car's own axes
        packet += [*body, *body, *turning[frame], *turning[frame], 0.02, 0.02]  # a, then the accuracies
        _write_text(data / f"{frame:010d}.txt", " ".join(f"{x:.15g}" for x in packet) + " 4 10 5 5 5\n")
    names = "lat lon alt roll pitch yaw vn ve vf vl vu ax ay az af al au wx wy wz wf wl wu pos_accuracy vel_accuracy"
    _write_text(folder / "dataformat.txt", "\n".join(f"{names} navstat numsats posmode velmode orimode".split()) + "\n")


def _write_sequence(folder: Path, options: WorldOptions, drive: Drive, number: str) -> None:
    """One drive in the odometry layout; the pictures are the raw drive's own files under a second name."""
    root = folder / "odometry"
    sequence, poses_file = root / "sequences" / number, (root / "poses").makedirs_p() / f"{number}.txt"
    if not poses_file.exists():
        world_from_camera = make_drive_scene(options, drive).world_from_camera
        poses = (np.linalg.inv(world_from_camera[0]) @ world_from_camera)[:, :3]
        _write_text(poses_file, "".join(_row(pose) + "\n" for pose in poses))
    if sequence.exists():
        return
    unfinished = folder / ".unfinished" / number
    for camera, name in (("image_02", "image_2"), ("image_03", "image_3")):
        if (folder / "raw" / drive.name / camera).exists():
            images = (unfinished / name).makedirs_p()
            for frame in range(options.frames):
                _link(folder / "raw" / drive.name / camera / "data" / f"{frame:010d}.png", images / f"{frame:06d}.png")
    offsets = (0.0, BASELINE, 0.0, BASELINE)
    lines = [f"P{k}: {_row(_projection(drive.intrinsics, offset))}\n" for k, offset in enumerate(offsets)]
    _write_text(unfinished / "calib.txt", "".join([*lines, f"Tr: {_row(camera_from_velodyne()[:3])}\n"]))
    _write_text(unfinished / "times.txt", "".join(f"{FRAME_TIME * k:.6e}\n" for k in range(options.frames)))
    sequence.parent.makedirs_p()
    os.rename(unfinished, sequence)
    (folder / ".unfinished").rmtree_p()


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, name)


def _write_splits(folder: Path, options: WorldOptions, drives: list[Drive]) -> None:
    """Scene lists, and the images of the test drives that have a LiDAR scan, in the Eigen lists' form."""
    folder.makedirs_p()
    for split in ("train", "val", "test"):
        names = [f"{drive.scene}\n" for drive in drives if drive.split == split]
        _write_text(folder / f"{split}_scenes.txt", "".join(names))
    files = [
        f"{drive.name}/image_02/data/{frame:010d}.png\n"
        for drive in drives
        if drive.split == "test"
        for frame in range(0, options.frames, options.scan_every)
    ]
    _write_text(folder / "test_files.txt", "".join(files))


def _write_text(file: Path, text: str) -> None:
    """Write a text file, unless one that says the same is there."""
    if not file.exists() or file.read_text() != text:
        write_text(file, text)
