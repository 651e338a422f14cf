"""Render a world of street scenes in KITTI's own layouts, with exact depth, poses and cameras.

    python data/make_world.py WORLD --drives 8 --frames 60
    python data/prepare_kitti.py raw WORLD/raw PREPARED ...

WORLD/raw and WORLD/odometry are laid out as KITTI raw data and KITTI odometry are; WORLD/splits lists the drives for
training, validation and testing and the test images. Stopped half way and started again with the same options, it
goes on with the drives that are missing. docs/world.md tells what is in the world.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli.flags import choose_device, positive_int, run_script
from datasets.synthetic import WorldOptions, write_world

DEFAULTS = WorldOptions()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the world goes: a new or empty folder, or a world begun before")
    add = parser.add_argument
    add(
        "--drives",
        type=int,
        metavar="N",
        default=DEFAULTS.drives,
        help="drives, each in a street of its own (default: %(default)s)",
    )
    add(
        "--frames",
        type=int,
        metavar="N",
        default=DEFAULTS.frames,
        help="frames of each drive, 10 a second (default: %(default)s)",
    )
    add("--width", type=int, metavar="N", default=DEFAULTS.width, help="image width in pixels (default: %(default)s)")
    add(
        "--height", type=int, metavar="N", default=DEFAULTS.height, help="image height in pixels (default: %(default)s)"
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        default=DEFAULTS.seed,
        help="the same seed gives the same bytes (default: %(default)s)",
    )
    add(
        "--moving-cars",
        type=float,
        metavar="SHARE",
        default=DEFAULTS.moving_cars,
        help="share of the drives, 0 to 1, in which other cars move: what the paper's explainability mask is for "
        "(default: %(default)s)",
    )
    add("--no-halts", dest="halts", action="store_false", help="the car never stops: no static frames")
    add("--exposure-changes", action="store_true", help="the camera's gain jumps by some 8 %% from frame to frame")
    add("--vary-focal", action="store_true", help="another focal length (0.8 to 1.25 times KITTI's) for each drive")
    add("--mono", dest="stereo", action="store_false", help="only the left camera, image_02: twice as fast")
    add("--dense-depth", action="store_true", help="true depth of all pixels, as 16-bit PNG (metres times 256)")
    add(
        "--scan-every",
        type=int,
        metavar="N",
        default=DEFAULTS.scan_every,
        help="frames from LiDAR scan to scan (default: %(default)s)",
    )
    add(
        "--jitter", type=float, metavar="DEGREES", default=DEFAULTS.jitter, help="pitch and roll (default: %(default)s)"
    )
    add("--jobs", type=positive_int, default=_cores(), help="processes, a drive each (default: the cores, %(default)s)")
    add(
        "--device",
        default="cpu",
        help="cpu, cuda, cuda:1 or mps; the bytes depend on it in the last bit of a few colours (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: list[str] | None = None) -> None:
    flags = vars(parse_arguments(arguments))
    folder, jobs, device = flags.pop("folder"), flags.pop("jobs"), str(choose_device(flags.pop("device")))
    options = WorldOptions(**flags)
    drives = write_world(folder, options, jobs=jobs, device=device, progress=True)
    splits = ", ".join(f"{sum(d.split == split for d in drives)} {split}" for split in ("train", "val", "test"))
    print(f"{folder}: {len(drives)} drives of {options.frames} frames, {options.width} x {options.height} ({splits})")


if __name__ == "__main__":
    run_script(main)
