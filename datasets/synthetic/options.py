"""The options of a world, and the drives that follow from them.

A drive is one recording: its names on disk, its camera and the split that it belongs to.
"""

import datetime
from dataclasses import dataclass, fields

import numpy as np
from path import Path

from datasets.synthetic.variation import Variation, draw_variation
from files.errors import InputError
from files.text import read_json

MIN_SIDE, MAX_SIDE = 32, 4096  # pixels of an image's width and height
MAX_DRIVES = 9000  # KITTI's drive names have four digits
MAX_FRAMES = 100_000  # of a drive
FIRST_YEAR = 2026  # of the drives of seed 0
MAX_TRAIN_SEQUENCE, FIRST_TEST_SEQUENCE, MAX_TEST_SEQUENCE = 8, 9, 21  # KITTI odometry: 00 to 08, and 09 to 21


@dataclass(frozen=True)
class WorldOptions:
    """All that a world depends on: the same options give the same bytes. Stored in `world.json` under these names."""

    drives: int = 8
    frames: int = 60  # of each drive
    width: int = 416
    height: int = 128
    seed: int = 0
    stereo: bool = True  # write image_03 beside image_02
    moving_cars: float = 0.0  # share of the drives in which other cars move, spread evenly
    halts: bool = True  # in drives of 40 frames and more the car stops now and then, which gives static frames
    exposure_changes: bool = False  # the camera's gain jumps from frame to frame
    vary_focal: bool = False  # each drive has its own focal length, and so its own DATE folder
    dense_depth: bool = False  # write the true depth of every pixel beside the images
    scan_every: int = 4  # frames from one LiDAR scan to the next
    jitter: float = 0.25  # standard deviation of pitch and roll, degrees
    varied: bool = False  # each drive has its own camera, kind of road, weather and traffic (`variation.py`)

    def check(self) -> None:
        """Raise InputError if no world can be made with these options."""
        for field in fields(self):
            value, expected = getattr(self, field.name), type(field.default)
            is_whole = expected is float and type(value) is int and abs(value) < 2**53  # exact as a float
            if type(value) is not expected and not is_whole:
                raise InputError(f"{field.name}: got {type(value).__name__}, expected {expected.__name__}")
        if self.drives < 1:
            raise InputError(f"drives: got {self.drives}, expected 1 or more")
        if self.drives > MAX_DRIVES:
            raise InputError(
                f"drives: got {self.drives}, expected at most {MAX_DRIVES} (KITTI's drive names have four digits)"
            )
        if not 3 <= self.frames <= MAX_FRAMES:
            raise InputError(f"frames: got {self.frames} per drive, expected 3 (one snippet) to {MAX_FRAMES}")
        for name, size in (("width", self.width), ("height", self.height)):
            if not MIN_SIDE <= size <= MAX_SIDE:
                raise InputError(f"{name}: got {size} pixels, expected {MIN_SIDE} to {MAX_SIDE}")
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
        if self.varied and self.vary_focal:
            raise InputError(
                "vary focal: got it with varied, whose drives have focal lengths of their own; leave it out"
            )
        if self.seed < 0:
            raise InputError(f"seed: got {self.seed}, expected 0 or more")


def read_options(file: Path) -> WorldOptions:
    """The options in a world.json. Options that it lacks have their default, keys that are no options are ignored.

    Raises:
        InputError: the file is damaged, or no world can be made with what it holds.
    """
    try:
        stored = read_json(file)
        options = WorldOptions(
            **{field.name: stored[field.name] for field in fields(WorldOptions) if field.name in stored}
        )
        options.check()
    except InputError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise InputError(f"{file}: does not hold the options of a world ({reason})") from None
    return options


@dataclass(frozen=True)
class Drive:
    """One drive of a world: its names on disk and its camera."""

    number: int  # from 1
    date: str  # DATE, for example 2026_01_01
    split: str  # train, val or test
    sequence: str | None  # its number among the odometry sequences; None if it is not one of them
    intrinsics: np.ndarray  # K [3, 3] in pixels, of both cameras
    moving_cars: bool

    @property
    def day(self) -> datetime.datetime:
        """The date of the drive, at midnight."""
        return datetime.datetime.strptime(self.date, "%Y_%m_%d")

    @property
    def scene(self) -> str:
        """The drive's name in lists of scenes: DATE_drive_NNNN."""
        return f"{self.date}_drive_{self.number:04d}"

    @property
    def name(self) -> str:
        """The drive's folder in the raw layout: DATE/DATE_drive_NNNN_sync."""
        return f"{self.date}/{self.scene}_sync"


def drive_variation(options: WorldOptions, number: int) -> Variation:
    """What a drive of a varied world draws; `number` is the drive's, from 1."""
    return draw_variation(options.seed, number, options.width, options.height)


def list_drives(options: WorldOptions) -> list[Drive]:
    """The drives of a world.

    The last fifth of the drives is for testing, the tenth before it for validation; with three drives or more there is
    at least one of each. Odometry sequences are numbered as in KITTI: training and validation drives are 00 to 08, test
    drives 09 to 21; further drives are no odometry sequences.
    """
    count = options.drives
    test = max(1, count // 5) if count > 1 else 0
    val = max(1, count // 10) if count > 2 else 0
    drives = []
    for k in range(count):
        split = "train" if k < count - test - val else "val" if k < count - test else "test"
        number = FIRST_TEST_SEQUENCE + k - (count - test) if split == "test" else k
        last = MAX_TEST_SEQUENCE if split == "test" else MAX_TRAIN_SEQUENCE
        sequence = f"{number:02d}" if number <= last else None
        focal = 0.581 * options.width  # KITTI's field of view
        # The year holds the seed, so that drives of different worlds have different names.
        date = datetime.date(FIRST_YEAR + options.seed % 7000, 1, 1)
        if options.vary_focal:
            focal *= np.random.default_rng([options.seed, k + 1, 2]).uniform(0.8, 1.25)
        if options.vary_focal or options.varied:  # a DATE folder holds one calibration
            date += datetime.timedelta(days=k)
        centre = 0.5 * options.width + 0.004 * options.width - 0.5, 0.46 * options.height - 0.5
        intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
        if options.varied:
            intrinsics = drive_variation(options, k + 1).intrinsics(options.width, options.height)
        # True for the drives at which the running count of drives with moving cars rises by one.
        moving = int((k + 1) * options.moving_cars + 1e-9) > int(k * options.moving_cars + 1e-9)
        drives.append(Drive(k + 1, date.strftime("%Y_%m_%d"), split, sequence, intrinsics, moving))
    return drives
