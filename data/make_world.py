"""Render street scenes with exact depth, poses and cameras, in KITTI's own layouts.

    python data/make_world.py WORLD --drives 8 --frames 60
    python data/prepare_kitti.py WORLD/raw PREPARED --with-depth --test-scenes WORLD/splits/test_scenes.txt

WORLD/raw has the layout of KITTI raw data, WORLD/odometry that of KITTI odometry. WORLD/splits lists the drives for
training, validation and testing, and the test images. If the command was stopped, the same command renders the drives
that are missing. docs/world.md describes the world.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli.flags import ArgumentParser, choose_device, positive_int, run_script

from datasets.synthetic import WorldOptions, write_world

DEFAULTS = WorldOptions()
VARIED_MOVING_CARS = 0.7  # share of the drives of a varied world


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", help="folder of the world: a new or empty one, or that of an unfinished world")

    def add_number(flag: str, kind: type, metavar: str, meaning: str) -> None:
        default = getattr(DEFAULTS, flag.removeprefix("--").replace("-", "_"))
        add(flag, type=kind, metavar=metavar, default=default, help=f"{meaning} (default: %(default)s)")

    add_number("--drives", int, "N", "number of drives, each in a street of its own")
    add_number("--frames", int, "N", "frames per drive, 10 per second")
    add_number("--width", int, "N", "image width in pixels")
    add_number("--height", int, "N", "image height in pixels")
    add_number("--seed", int, "N", "seed of the world: the same seed gives the same bytes")
    add(
        "--moving-cars",
        type=float,
        metavar="SHARE",
        help="share of the drives, 0 to 1, in which other cars move; the paper's explainability mask is for them "
        f"(default: 0; with --varied {VARIED_MOVING_CARS:g})",
    )
    add_number("--scan-every", int, "N", "frames from one LiDAR scan to the next")
    add_number("--jitter", float, "DEGREES", "standard deviation of pitch and roll in degrees")
    add("--no-halts", dest="halts", action="store_false", help="the car never stops: no static frames")
    add("--exposure-changes", action="store_true", help="the camera's gain jumps by about 8 %% from frame to frame")
    add("--vary-focal", action="store_true", help="a different focal length for each drive, 0.8 to 1.25 times KITTI's")
    add(
        "--varied",
        action="store_true",
        help="each drive has its own camera (focal lengths, height, tilt), road (town, suburb, avenue, country, "
        "motorway), weather, light, noise, blur and compression: the world for networks that shall see real streets",
    )
    add("--mono", dest="stereo", action="store_false", help="only the left camera, image_02: twice as fast")
    add("--dense-depth", action="store_true", help="write the true depth of all pixels: 16-bit PNG, metres times 256")
    add(
        "--jobs",
        type=positive_int,
        default=_cores(),
        help="number of processes, each of which renders one drive at a time (default: one per core, %(default)s)",
    )
    add(
        "--device",
        default="cpu",
        help="cpu, cuda, cuda:1 or mps; on another device a few colours differ by one (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: list[str] | None = None) -> None:
    flags = vars(parse_arguments(arguments))
    folder, jobs, device = flags.pop("folder"), flags.pop("jobs"), str(choose_device(flags.pop("device")))
    if flags["moving_cars"] is None:
        flags["moving_cars"] = VARIED_MOVING_CARS if flags["varied"] and flags["drives"] > 1 else 0.0
    options = WorldOptions(**flags)
    drives = write_world(folder, options, jobs=jobs, device=device, progress=True)
    splits = ", ".join(f"{sum(d.split == split for d in drives)} {split}" for split in ("train", "val", "test"))
    print(f"{folder}: {len(drives)} drives of {options.frames} frames, {options.width} x {options.height} ({splits})")


if __name__ == "__main__":
    run_script(main)
