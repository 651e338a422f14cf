"""Prepare a KITTI download, raw or odometry, for train.py.

    python data/prepare_kitti.py KITTI_RAW PREPARED
    python data/prepare_kitti.py KITTI_RAW PREPARED --with-depth --with-poses
    python data/prepare_kitti.py KITTI_ODOMETRY PREPARED --with-poses --sequences 00 06

KITTI_RAW holds DATE/DATE_drive_NNNN_sync. KITTI_ODOMETRY holds sequences/NN and poses/NN.txt, or a folder dataset/ with
them. The script detects which of the two it is. Parts may be missing (oxts, velodyne_points, image_03, time stamps,
colour images). Images may be PNG or JPEG.

PREPARED gets a folder for each camera of each drive: frames resized by area averaging (0000000.jpg), the camera matrix
of these images (cam.txt), on request depth (0000000.npy) and poses (poses.txt). It also gets train.txt and val.txt.
After a stop the same command goes on. Run again, it makes only what is new. docs/preparation.md has the details.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # --jobs processes run, each with one thread

from cli.flags import ArgumentParser, fraction, non_negative_float, positive_int, run_script

from path import Path

from datasets.formats.kitti_folders import (
    COLOUR_CAMERAS,
    LAYOUTS,
    Recording,
    detect_layout,
    drive_folders,
    find_recordings,
    read_calibration,
    read_drive_list,
)
from datasets.preparation.jobs import claim_folder, prepare_scenes, report, write_lists
from datasets.preparation.kitti import KittiScene
from files.errors import InputError
from files.text import read_names

SPLITS = Path(__file__).absolute().parent / "splits"
STATIC_CHOICES = ("none", "list", "speed", "images")
TRAINING_SEQUENCES = tuple(f"{number:02d}" for number in range(9))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("kitti", type=Path, help="folder of KITTI raw or KITTI odometry, as downloaded and unpacked")
    add("prepared", type=Path, help="folder to write: new, empty, or begun with the same options")
    add("--layout", choices=("auto", *LAYOUTS), default="auto", help="default: detected")
    add("--height", type=positive_int, default=128, help="height of the prepared images (default: %(default)s)")
    add(
        "--width",
        type=positive_int,
        default=416,
        help="width of the prepared images, whatever the aspect (default: %(default)s)",
    )
    add(
        "--cameras",
        type=_camera,
        nargs="+",
        metavar="CAMERA",
        help="00 to 03 (default: 02 03, which are colour; for drives without colour images 00 01, which are grey)",
    )
    add(
        "--with-depth",
        action="store_true",
        help="write depth maps from the LiDAR scans: z along the camera's axis, metres",
    )
    add("--with-poses", action="store_true", help="write poses from OXTS (raw) or the poses files (odometry)")
    add(
        "--static",
        choices=STATIC_CHOICES,
        help="leave out frames in which the camera stands: by the published list, by the speed in the OXTS packets, "
        "or by the images alone (default: list for raw, none for odometry)",
    )
    add(
        "--min-speed",
        type=non_negative_float,
        default=0.5,
        metavar="M/S",
        help="with --static speed: the car stands below this speed (default: %(default)s)",
    )
    add("--jobs", type=positive_int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    add_choice_of_drives(parser)
    return parser.parse_args(arguments)


def add_choice_of_drives(parser: argparse.ArgumentParser) -> None:
    """The flags that choose the drives, and which of them are for validation."""
    add = parser.add_argument
    test = parser.add_mutually_exclusive_group()
    test.add_argument("--keep-test-scenes", action="store_true", help="raw: prepare the Eigen test drives, too")
    test.add_argument(
        "--test-scenes",
        type=Path,
        default=SPLITS / "eigen_test_scenes.txt",
        metavar="FILE",
        help="raw: drives to leave out, one per line (default: the 28 drives of the Eigen test split)",
    )
    add(
        "--sequences",
        nargs="+",
        metavar="NN",
        help="odometry: sequences to prepare (default: 00 to 08; 09 and 10 are for testing)",
    )
    add(
        "--val-fraction",
        type=fraction,
        default=0.1,
        help="share of the drives for validation, at least one (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="seed for choosing the validation drives (default: %(default)s)")


def _camera(text: str) -> str:
    if text.isdecimal() and int(text) < 4:
        return f"{int(text):02d}"
    raise argparse.ArgumentTypeError(f"got {text!r}, expected 00, 01, 02 or 03")


def main() -> None:
    args = parse_arguments()
    layout = detect_layout(args.kitti) if args.layout == "auto" else args.layout
    static = args.static or ("list" if layout == "raw" else "none")
    if layout == "odometry" and static in ("list", "speed"):
        raise InputError(f"--static {static}: KITTI odometry has no such information, use --static images or none")
    notices: list[str] = []
    recordings = choose_recordings(args, layout, static, notices)
    jobs = make_jobs(args, recordings, static)  # raises for a damaged calibration, before anything is written
    with claim_folder(args.prepared, chosen_options(args, layout, static)):
        for notice in notices:
            print(f"note: {notice}", flush=True)
        todo = [job for job in jobs if not job.is_complete()]
        if todo:
            prepare_scenes(todo, args.jobs)
        records = {job.scene: job.read_record() or {} for job in jobs}
        write_lists(args.prepared, jobs, records, args.val_fraction, args.seed, "drives")
        report(args.prepared, jobs, records, len(todo))


# Choosing recordings


def choose_recordings(args: argparse.Namespace, layout: str, static: str, notices: list[str]) -> list[Recording]:
    """The recordings to prepare. Parts missing in some drives become a notice, parts missing in all an InputError."""
    folders = drive_folders(args.kitti, layout)
    chosen = _without_test_drives(args, layout, folders)
    if len(chosen) < len(folders):
        notices.append(
            f"{len(folders) - len(chosen)} of {len(folders)} drives are left out: for testing, or not chosen"
        )
    found = {folder: find_recordings(folder, layout, args.cameras) for folder in chosen}

    def check(what: str, have: list[bool], asked_for: bool) -> None:
        missing = [str(drive.name) for drive, has in zip(chosen, have, strict=True) if not has]
        if asked_for and len(missing) == len(chosen):
            raise InputError(f"{args.kitti}: no {what} in any of the {len(chosen)} drives")
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            notices.append(f"no {what} in {len(missing)} of {len(chosen)} drives: {', '.join(missing[:3])}{more}")

    for camera in args.cameras or ():
        check(f"camera {camera}", [camera in [r.camera for r in found[drive]] for drive in chosen], asked_for=True)
    check("images", [bool(found[drive]) for drive in chosen], asked_for=True)
    chosen = [drive for drive in chosen if found[drive]]
    first = [found[drive][0] for drive in chosen]
    if args.cameras is None:
        check(
            "colour images (so the grey ones are taken)", [r.camera in COLOUR_CAMERAS for r in first], asked_for=False
        )
        check("second camera", [len(found[drive]) == 2 for drive in chosen], asked_for=False)
    if args.with_depth:
        check("LiDAR scans", [bool(r.scans) for r in first], asked_for=True)
    if args.with_poses:
        check("oxts packets" if layout == "raw" else "poses file", [r.has_poses for r in first], asked_for=True)
    if static == "speed":
        check("oxts packets (for the speed)", [bool(r.packets) for r in first], asked_for=True)
    return [recording for folder in chosen for recording in found[folder]]


def _without_test_drives(args: argparse.Namespace, layout: str, folders: list[Path]) -> list[Path]:
    if layout == "odometry":
        wanted = args.sequences or TRAINING_SEQUENCES
        missing = set(args.sequences or ()) - {str(folder.name) for folder in folders}
        if missing:
            raise InputError(f"--sequences: {', '.join(sorted(missing))} not found in {args.kitti}")
        chosen = [folder for folder in folders if folder.name in wanted]
        if not chosen:
            raise InputError(f"{args.kitti}: none of the sequences 00 to 08, choose others by --sequences")
        return chosen
    if args.sequences:
        raise InputError("--sequences is for KITTI odometry, this is KITTI raw")
    if args.keep_test_scenes:
        return folders
    test = read_drive_list(args.test_scenes, args.kitti)
    chosen = [folder for folder in folders if folder.name.removesuffix("_sync") not in test]
    if not chosen:
        raise InputError(f"{args.kitti}: only test drives in it (of {args.test_scenes}); --keep-test-scenes takes them")
    return chosen


def chosen_options(args: argparse.Namespace, layout: str, static: str) -> dict:
    """The options that all frames of a prepared folder share; a later run must have the same ones."""
    return {
        "layout": layout,
        "size": f"{args.width} x {args.height}",
        "cameras": "default" if args.cameras is None else " ".join(sorted(set(args.cameras))),
        "with-depth": args.with_depth,
        "with-poses": args.with_poses,
        "static": f"speed below {args.min_speed:g} m/s" if static == "speed" else static,
    }


# Jobs


def make_jobs(args: argparse.Namespace, recordings: list[Recording], static: str) -> list[KittiScene]:
    """A job for each recording; InputError if a calibration that it needs is missing or damaged."""
    listed = _read_static_list() if static == "list" else {}
    jobs = []
    for recording in recordings:
        need_lidar = args.with_depth and bool(recording.scans)
        need_imu = args.with_poses and bool(recording.packets)
        jobs.append(
            KittiScene(
                scene=recording.scene,
                group=recording.drive,
                folder=args.prepared / recording.scene,
                images=recording.images,
                recording=recording,
                calibration=read_calibration(recording, need_lidar, need_imu),
                height=args.height,
                width=args.width,
                with_poses=args.with_poses,
                with_depth=args.with_depth,
                static=static,
                min_speed=args.min_speed,
                listed_static=frozenset(listed.get(recording.drive, ())),
            )
        )
    return jobs


def _read_static_list() -> dict[str, set[int]]:
    """Frame numbers of the published list by drive, for all of its cameras."""
    listed: dict[str, set[int]] = {}
    for line in read_names(SPLITS / "static_frames.txt"):
        _, drive, frame = line.split()
        listed.setdefault(drive, set()).add(int(frame))
    return listed


if __name__ == "__main__":
    run_script(main)
