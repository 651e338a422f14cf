"""Turn a KITTI download, raw or odometry, into the layout that train.py reads.

    python data/prepare_kitti.py KITTI_RAW PREPARED
    python data/prepare_kitti.py KITTI_RAW PREPARED --with-depth --with-poses
    python data/prepare_kitti.py KITTI_ODOMETRY PREPARED --with-poses --sequences 00 06

KITTI_RAW holds DATE/DATE_drive_NNNN_sync, KITTI_ODOMETRY holds sequences/NN (and poses/NN.txt); which of the two it is
is found out. Parts may be missing (oxts, velodyne_points, image_03, time stamps, colour images).

PREPARED gets a folder for each camera of each drive: frames resized true to area (0000000.jpg), the camera matrix of
these images (cam.txt), on request depth (0000000.npy) and poses (poses.txt); and train.txt and val.txt. Stopped half
way, the same command goes on; run again, it does only what is new. docs/preparation.md tells more.
"""

import argparse
import errno
import json
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # --jobs says how many processes run, each with one thread

import torch
from path import Path
from tqdm import tqdm

from datasets.kitti_layout import (
    COLOUR_CAMERAS,
    LAYOUTS,
    Recording,
    detect_layout,
    drive_folders,
    find_recordings,
    read_calibration,
)
from datasets.kitti_scene import Plan, SceneJob
from datasets.layout import write_scene_names, write_text
from datasets.text import read_lines, read_names
from errors import InputError
from options import non_negative_float, positive_int, run_script

SPLITS = Path(__file__).absolute().parent / "splits"
STATIC_CHOICES = ("none", "list", "speed", "images")
TRAINING_SEQUENCES = tuple(f"{number:02d}" for number in range(9))
OPTIONS_FILE = "prepare.json"  # what a prepared folder was made with; the mark of a folder of ours
REPORT_FILE = "prepare_report.txt"
SHORTEST_SCENE = 3  # frames; less holds no snippet
LARGEST_CHUNK = 16  # frames a task


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("kitti", type=Path, help="folder of KITTI raw or KITTI odometry, as downloaded and unpacked")
    add("prepared", type=Path, help="folder to write: a new or empty one, or one begun with the same options")
    add("--layout", choices=("auto", *LAYOUTS), default="auto", help="default: found out")
    add("--height", type=positive_int, default=128, help="of the prepared images (default: %(default)s)")
    add("--width", type=positive_int, default=416, help="the aspect isn't kept (default: %(default)s)")
    add(
        "--cameras",
        type=_camera,
        nargs="+",
        metavar="CAMERA",
        help="00 to 03 (default: 02 03, the colour ones; 00 01, the grey ones, for drives without colour)",
    )
    add("--with-depth", action="store_true", help="depth maps from the LiDAR scans: z along the camera's axis, metres")
    add("--with-poses", action="store_true", help="poses from OXTS (raw) or the poses files (odometry)")
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
        help="with --static speed: slower is standing (default: %(default)s)",
    )
    test = parser.add_mutually_exclusive_group()
    test.add_argument("--keep-test-scenes", action="store_true", help="raw: prepare the Eigen test drives as well")
    test.add_argument(
        "--test-scenes",
        type=Path,
        default=SPLITS / "eigen_test_scenes.txt",
        metavar="FILE",
        help="raw: drives to leave out, one a line (default: the 28 drives of the Eigen test split)",
    )
    add(
        "--sequences",
        nargs="+",
        metavar="NN",
        help="odometry: sequences to prepare (default: 00 to 08; 09 and 10 are for testing)",
    )
    add(
        "--val-fraction",
        type=_fraction,
        default=0.1,
        help="share of the drives for validation, at least one (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the choice of validation drives (default: %(default)s)")
    add("--jobs", type=positive_int, default=os.cpu_count() or 1, help="processes (default: the cores, %(default)s)")
    return parser.parse_args(arguments)


def _camera(text: str) -> str:
    if text.isdecimal() and int(text) < 4:
        return f"{int(text):02d}"
    raise argparse.ArgumentTypeError(f"got {text!r}, expected 00, 01, 02 or 03")


def _fraction(text: str) -> float:
    value = non_negative_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share from 0 to below 1")
    return value


def main() -> None:
    args = parse_arguments()
    layout = detect_layout(args.kitti) if args.layout == "auto" else args.layout
    static = args.static or ("list" if layout == "raw" else "none")
    if layout == "odometry" and static in ("list", "speed"):
        raise InputError(f"--static {static}: KITTI odometry has no such information, use --static images or none")
    notices: list[str] = []
    recordings = choose_recordings(args, layout, static, notices)
    jobs = make_jobs(args, recordings, static)  # a damaged calibration ends it here, before anything is written
    claim_folder(args.prepared, chosen_options(args, layout, static))
    for notice in notices:
        print(f"note: {notice}", flush=True)
    todo = [job for job in jobs if not job.is_complete()]
    if todo:
        prepare_scenes(todo, args.jobs)
    records = {job.recording.scene: job.read_record() or {} for job in jobs}
    write_lists(args, jobs, records)
    report(args, jobs, records, len(todo))


# What there is to do


def choose_recordings(args: argparse.Namespace, layout: str, static: str, notices: list[str]) -> list[Recording]:
    """The recordings to prepare. What is missing in some drives becomes a notice, in all of them an InputError."""
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
    test = {name.split("/")[-1].removesuffix("_sync") for name in read_names(args.test_scenes)}
    chosen = [folder for folder in folders if folder.name.removesuffix("_sync") not in test]
    if not chosen:
        raise InputError(f"{args.kitti}: only test drives in it (of {args.test_scenes}); --keep-test-scenes takes them")
    return chosen


def chosen_options(args: argparse.Namespace, layout: str, static: str) -> dict:
    """The options that every frame of one prepared folder must share."""
    return {
        "layout": layout,
        "size": f"{args.width} x {args.height}",
        "cameras": "default" if args.cameras is None else " ".join(sorted(set(args.cameras))),
        "with-depth": args.with_depth,
        "with-poses": args.with_poses,
        "static": f"speed below {args.min_speed:g} m/s" if static == "speed" else static,
    }


def claim_folder(folder: Path, options: dict) -> None:
    """Make the output folder ours, or see that it is; InputError if it is something else, or has other options."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder to write")
    file = folder / OPTIONS_FILE
    if not file.exists():
        if folder.is_dir() and any(not entry.endswith(".part") for entry in os.listdir(folder)):
            raise InputError(
                f"{folder}: holds something else (there is no {OPTIONS_FILE}), expected a new or empty folder"
            )
        folder.makedirs_p()
        write_text(file, json.dumps(options, indent=1) + "\n")
        return
    try:
        before = json.loads("\n".join(read_lines(file)))
    except ValueError as error:
        raise InputError(f"{file}: {error}, expected the options of an earlier run") from None
    if not isinstance(before, dict):
        raise InputError(f"{file}: expected the options of an earlier run")
    differ = [
        f"{key} was {before.get(key)}, is now {value}" for key, value in options.items() if before.get(key) != value
    ]
    if differ:
        raise InputError(f"{folder}: prepared with other options ({'; '.join(differ)}), choose another folder")


# Doing it


def make_jobs(args: argparse.Namespace, recordings: list[Recording], static: str) -> list[SceneJob]:
    """A job for each recording; InputError if a calibration that it needs is missing or damaged."""
    listed = _read_static_list() if static == "list" else {}
    jobs = []
    for recording in recordings:
        need_lidar = args.with_depth and bool(recording.scans)
        need_imu = args.with_poses and bool(recording.packets)
        jobs.append(
            SceneJob(
                recording=recording,
                calibration=read_calibration(recording, need_lidar, need_imu),
                folder=args.prepared / recording.scene,
                height=args.height,
                width=args.width,
                with_depth=need_lidar,
                with_poses=args.with_poses,
                static=static,
                min_speed=args.min_speed,
                listed_static=frozenset(listed.get(recording.drive, ())),
            )
        )
    return jobs


def _read_static_list() -> dict[str, set[int]]:
    """Frames of the published list by drive; they hold for all cameras of the drive."""
    listed: dict[str, set[int]] = {}
    for line in read_names(SPLITS / "static_frames.txt"):
        _, drive, frame = line.split()
        listed.setdefault(drive, set()).add(int(frame))
    return listed


def prepare_scenes(jobs: list[SceneJob], processes: int) -> None:
    """Plan each scene, prepare its frames, finish it: all scenes and frames at once, shared out over the processes."""
    total = sum(len(job.recording.images) for job in jobs)
    chunk = max(1, min(LARGEST_CHUNK, total // (4 * processes)))
    plans: dict[int, Plan] = {}
    problems: dict[int, dict[int, str]] = {}
    unfinished: dict[int, int] = {}  # chunks of a scene that are under way
    pending: dict[Future, tuple[str, int, int]] = {}  # step, scene, frames that are done with it
    finished: SimpleQueue[Future] = SimpleQueue()

    pool = ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(jobs,))

    def submit(step: str, scene: int, *arguments: Any, frames: int = 0) -> None:
        future = pool.submit(_work, step, scene, *arguments)
        pending[future] = (step, scene, frames)
        future.add_done_callback(finished.put)

    try:
        for scene in range(len(jobs)):
            submit("plan", scene)
        # After the processes have begun: the bar has a thread, and a process with threads should not fork.
        with tqdm(total=total, unit="frame", desc="preparing", smoothing=0.05) as bar:
            while pending:
                future = finished.get()
                step, scene, frames = pending.pop(future)
                result = future.result()
                if step == "plan":
                    plans[scene], problems[scene] = result, dict(result.problems)
                    frames = len(jobs[scene].recording.images) - len(result.frames)
                    chunks = [result.frames[i : i + chunk] for i in range(0, len(result.frames), chunk)]
                    unfinished[scene] = len(chunks)
                    for piece in chunks:
                        submit("prepare_frames", scene, piece, frames=len(piece))
                elif step == "prepare_frames":
                    unfinished[scene] -= 1
                    problems[scene] |= result
                if step != "finish" and unfinished[scene] == 0:
                    submit("finish", scene, plans[scene], problems[scene])
                bar.update(frames)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        folder = jobs[0].folder.parent
        raise InputError(f"{folder}: the disk is full; with more room, the same command goes on") from None
    except BrokenProcessPool:
        raise InputError("a process ended from outside (out of memory?); the same command goes on") from None
    finally:  # on an error or Ctrl-C what has begun is completed, and nothing more is begun
        pool.shutdown(cancel_futures=True)


_jobs: list[SceneJob] = []  # of a worker process: sent once, and not with every task


def _start_worker(jobs: list[SceneJob]) -> None:
    _jobs[:] = jobs
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed can't tell its workers, which would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(step: str, scene: int, *arguments: Any) -> Any:
    return getattr(_jobs[scene], step)(*arguments)


# What came of it


def write_lists(args: argparse.Namespace, jobs: list[SceneJob], records: dict[str, dict]) -> None:
    """train.txt and val.txt: whole drives on either side, chosen by a hash of seed and name.

    Drives that are added later don't move the others about, as they would by a random permutation.
    """
    scenes: dict[str, list[str]] = {}
    for job in jobs:
        if records[job.recording.scene]["frames"] >= SHORTEST_SCENE:
            scenes.setdefault(job.recording.drive, []).append(job.recording.scene)
    if not scenes:
        first = next((f" (e.g. {p})" for r in records.values() for p in r["problems"].values()), "")
        raise InputError(f"{args.prepared}: no scene has {SHORTEST_SCENE} frames or more{first}")
    drives = sorted(scenes, key=lambda drive: sha256(f"{args.seed} {drive}".encode()).digest())
    count = 0
    if args.val_fraction > 0 and len(drives) > 1:
        count = min(len(drives) - 1, max(1, round(args.val_fraction * len(drives))))
    for name, side in (("val.txt", drives[:count]), ("train.txt", drives[count:])):
        write_scene_names(args.prepared / name, sorted(scene for drive in side for scene in scenes[drive]))
    print(f"train.txt: {len(drives) - count} drives, val.txt: {count} drives, both cameras of a drive on the same side")
    if count == 0 and args.val_fraction > 0:
        print("note: a single drive can't be split: all of it is for training, and val.txt is empty")


def report(args: argparse.Namespace, jobs: list[SceneJob], records: dict[str, dict], done: int) -> None:
    """Counts to the terminal; every frame that was left out or has no depth, with its reason, to a file."""
    lines = [f"{scene} {int(f):07d}: {text}" for scene, r in records.items() for f, text in r["problems"].items()]
    short = [scene for scene, record in records.items() if record["frames"] < SHORTEST_SCENE]
    lines += [f"{scene}: {records[scene]['frames']} frames, in no list: too short for a snippet" for scene in short]
    lines += [f"{scene} {frame:07d}: static" for scene, record in records.items() for frame in record["static"]]
    write_text(args.prepared / REPORT_FILE, "".join(f"{line}\n" for line in lines))

    if done == 0:
        print("nothing to do: all scenes are there and complete")
    frames = sum(record["frames"] for scene, record in records.items() if scene not in short)
    print(f"{frames} frames in {len(jobs) - len(short)} scenes in {args.prepared}")
    if short:
        print(f"{len(short)} scenes with fewer than {SHORTEST_SCENE} frames are in no list: {', '.join(short[:3])}")
    static = sum(len(record["static"]) for record in records.values())
    if static:
        print(f"{static} static frames left out")
    problems = [text for record in records.values() for text in record["problems"].values()]
    if problems:
        without_depth = sum(text.startswith("no depth: ") for text in problems)
        print(
            f"missing or damaged files: {len(problems) - without_depth} frames left out, "
            f"{without_depth} without depth, e.g."
        )
        for text in problems[:3]:
            print(f"  {text}")
    if lines:
        print(f"each of them is in {args.prepared / REPORT_FILE}")


if __name__ == "__main__":
    run_script(main)
