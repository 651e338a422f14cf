"""Prepare videos, or folders of images, for train.py.

    python data/prepare_video.py drive.mp4 PREPARED
    python data/prepare_video.py VIDEOS/*.mp4 FOLDER_OF_IMAGES PREPARED --crop auto --calibration camera.yaml
    python data/prepare_video.py phone.mov PREPARED --fov 65 --width 416 --height 224

Each video, and each folder of images (JPEG or PNG, in order of the numbers in their names; or TUM RGB-D's or EuRoC's
layout, with poses), becomes scenes: frames
(0000000.jpg) and the camera matrix of these images (cam.txt). A cut, a gap in time and black frames begin a new scene.
Repeated frames, and those in which the camera stands, are left out. The last tenth of each input is for validation.
Without --fov, --focal or --calibration, the focal length comes from the video itself where the camera turns, by
structure from motion. Where it cannot be told, K is a guess. camera.json says what K is.

The data check runs at the end and says whether depth and motion can be learned from the result. After a stop the same
command goes on. Run again with more videos, it adds them. docs/own_video.md shows the whole way.
"""

import argparse
import hashlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # --jobs processes run, each with its own threads

from typing import Any

from cli.flags import ArgumentParser, crop_or, fraction, non_negative_float, positive_float, positive_int, run_script
from cli.tables import report_data_check, table

from path import Path

from datasets.layout import GUESS, SELF_CALIBRATION
from datasets.preparation.check import check_data
from datasets.preparation.jobs import claim_folder
from datasets.preparation.self_calibration import missing_package, self_calibrate
from datasets.preparation.still_borders import Borders
from datasets.preparation.video import VideoJob, find_borders, is_complete, read_records
from datasets.preparation.video_inputs import Input, find_inputs
from datasets.preparation.video_jobs import (
    CameraChoice,
    choose_camera,
    choose_names,
    common_size,
    describe_left_out,
    run_jobs,
    write_lists,
)
from datasets.preparation.view import (
    GUESSED_FIELD_OF_VIEW,
    MULTIPLE,
    View,
    make_view,
    round_to_multiple,
    simple_calibration,
)
from files.errors import UsageError
from files.lock import FolderLock

CHECKED_PAIRS = 400  # of neighbouring frames, by the data check


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("inputs", type=Path, nargs="+", metavar="VIDEO_OR_FOLDER", help="videos, folders of images, folders of videos")
    add("prepared", type=Path, help="folder to write: new, empty, or begun with the same options")
    add(
        "--fps",
        type=positive_float,
        default=10.0,
        help="frames per second to take from videos, by their time stamps (default: %(default)g, as in KITTI)",
    )
    add("--every", type=positive_int, default=1, metavar="N", help="take every N-th image of folders (default: 1)")
    add(
        "--from-colmap",
        action="store_true",
        help="the inputs are folders of COLMAP, with images/ and sparse/0/: its camera, and its poses as poses.txt",
    )
    size = parser.add_argument_group("size and crop")
    size.add_argument("--width", type=_multiple, help=f"of the prepared images, a multiple of {MULTIPLE}")
    size.add_argument(
        "--height",
        type=_multiple,
        help="of the prepared images (default of both: 416 for the longer side, the other one by the aspect of the "
        "first input; what does not fit the aspect is cut off on both sides)",
    )
    size.add_argument(
        "--crop",
        type=crop_or("auto", "none"),
        default="none",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="pixels of the input to leave out at each side, such as 0,0,0,120 for a bonnet; auto finds black bars and "
        "the bonnet where they are the same in all frames, and shows them in PREPARED/crop_NAME.jpg (default: none)",
    )
    add_camera_flags(parser)
    add(
        "--static",
        choices=("images", "none"),
        default="images",
        help="leave out frames in which the camera stands, by the images alone (default: %(default)s)",
    )
    add(
        "--val-fraction",
        type=fraction,
        default=0.1,
        help="share of each input for validation, from its end (default: %(default)s)",
    )
    add(
        "--val-gap",
        type=non_negative_float,
        default=2.0,
        metavar="SECONDS",
        help="left out between training and validation, at most a tenth of an input (default: %(default)g)",
    )
    add("--jobs", type=positive_int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    return parser.parse_args(arguments)


def add_camera_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say where K comes from; at most one is given."""
    group = parser.add_argument_group(
        "camera",
        "default: the focal length from the video itself, where the camera turns (a minute or two); else a guess of "
        f"{GUESSED_FIELD_OF_VIEW:g} degrees along the longer side. camera.json says which",
    )
    camera = group.add_mutually_exclusive_group()
    camera.add_argument("--fov", type=_angle, metavar="DEGREES", help="horizontal field of view of the whole picture")
    camera.add_argument("--focal", type=positive_float, metavar="PIXELS", help="focal length in pixels of the input")
    camera.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="OpenCV's YAML or JSON (also ROS, Kalibr, EuRoC, ORB-SLAM), KITTI's calib.txt or calib_cam_to_cam.txt, "
        "COLMAP's cameras.txt or cameras.bin; lens distortion is undone",
    )
    group.add_argument(
        "--calibration-camera",
        metavar="NAME",
        help="the camera in a file with several: KITTI's 0 to 3 (default: 2), COLMAP's id, the name of an entry",
    )
    group.add_argument(
        "--no-self-calibration",
        action="store_true",
        help="without a flag for the camera, K is a guess at once, which training can learn (--camera learned)",
    )


def _multiple(text: str) -> int:
    pixels = positive_int(text)
    if pixels % MULTIPLE:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a multiple of {MULTIPLE}, such as {round_to_multiple(pixels)}: networks halve "
            "images five times"
        )
    return pixels


def _angle(text: str) -> float:
    angle = positive_float(text)
    if not 5 <= angle <= 170:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 5 to 170 degrees")
    return angle


def main() -> None:
    args = parse_arguments()
    if args.calibration_camera is not None and args.calibration is None:
        raise UsageError("--calibration-camera goes with --calibration FILE")
    inputs, unusable = find_inputs(args.inputs, args.every, args.from_colmap)
    check_sizes(args, inputs)
    for problem in unusable:
        print(f"note: left out: {problem}", flush=True)
    views = [make_whole_view(args, source) for source in inputs]
    with claim(args):
        if not args.no_self_calibration:
            calibrate_guessed(args, inputs, views)
        jobs, names = make_jobs(args, inputs, views)
        if jobs:
            run_jobs(jobs, min(args.jobs, len(jobs)))
        else:
            print("nothing to do: all inputs are complete")
        records = write_lists(args.prepared)
        report(args.prepared, {name: records[name] for name in names if name in records}, inputs, args.fps)
        check = check_data(args.prepared, 3, CHECKED_PAIRS)
        report_data_check(check)
        report_next_step(args.prepared, records, bool(check.warnings))


def report_next_step(prepared: Path, records: dict[str, dict[str, Any]], warned: bool) -> None:
    """Print how to train on the prepared data, and what to know before."""
    guessed = any(record["camera"]["source"] == GUESS for record in records.values())
    verdict = "depth and motion can be learned from it"
    if warned:
        verdict = "The data check printed warnings, see above. To train anyway"
    print(f"{verdict}: python train.py {prepared} --recipe small {'--camera learned ' if guessed else ''}--name mine")
    if not any(scene["list"] == "val.txt" for record in records.values() for scene in record["scenes"]):
        print("note: val.txt is empty: too few frames for validation, or --val-fraction 0")
    focals = {
        record["camera"]["focal"] for record in records.values() if record["camera"]["source"] == SELF_CALIBRATION
    }
    for focal in sorted(focals):
        print(f"to predict from the video itself, give predict.py its camera: --focal {focal:.1f}")
    if guessed:
        print(
            f"note: K is a guess ({GUESSED_FIELD_OF_VIEW:g} degrees along the longer side). Give --fov, --focal or "
            "--calibration in a new folder, or train with --camera learned"
        )


def check_sizes(args: argparse.Namespace, inputs: list[Input]) -> None:
    """UsageError if a flag is in pixels, and the inputs have several sizes."""
    sizes = {source.size for source in inputs}
    for flag, given in (("--focal", args.focal is not None), ("--crop", isinstance(args.crop, tuple))):
        if given and len(sizes) > 1:
            shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
            raise UsageError(f"{flag} is in pixels of one size, the inputs have {len(sizes)} sizes: {shown}")


def make_whole_view(args: argparse.Namespace, source: Input) -> tuple[View, dict[str, Any]]:
    """The view of an input before it is resized, with the given crop, and what camera.json says of it."""
    choice = CameraChoice(args.fov, args.focal, args.calibration, args.calibration_camera)
    calibration, camera = choose_camera(choice, source)
    margins = args.crop if isinstance(args.crop, tuple) else (0, 0, 0, 0)
    return make_view(calibration, margins), camera


def calibrate_guessed(args: argparse.Namespace, inputs: list[Input], views: list[tuple[View, dict[str, Any]]]) -> None:
    """Replace views whose K is a guess by those with a focal length from the inputs themselves, where they tell it.

    Inputs of one size are taken to be recorded by one camera, as `--camera learned` takes them. An estimate of an
    earlier run in the folder counts for later inputs of the size.
    """
    records = read_records(args.prepared)
    names = choose_names(inputs, records)
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, (name, source) in enumerate(zip(names, inputs, strict=True)):
        complete = name in records and is_complete(args.prepared, records[name], source)
        if views[number][1]["source"] == GUESS and not complete:
            by_size.setdefault(source.size, []).append(number)
    margins = args.crop if isinstance(args.crop, tuple) else (0, 0, 0, 0)
    for size, numbers in by_size.items():
        estimate = estimate_of_records(records, size) or estimate_camera(args, [inputs[n] for n in numbers], margins)
        if estimate is None:
            continue
        for number in numbers:
            calibration = simple_calibration(estimate["focal"], *size, str(inputs[number].path))
            views[number] = make_view(calibration, margins), estimate


def estimate_of_records(records: dict[str, dict[str, Any]], size: tuple[int, int]) -> dict[str, Any] | None:
    """What camera.json says of an input of this size (width, height) whose focal length was estimated before."""
    for record in records.values():
        camera = record["camera"]
        if camera["source"] == SELF_CALIBRATION and tuple(camera["size"]) == size:
            return camera
    return None


def estimate_camera(
    args: argparse.Namespace, inputs: list[Input], margins: tuple[int, int, int, int]
) -> dict[str, Any] | None:
    """The focal length from inputs of one size, as camera.json has it; None, and a line with the reason, if unknown."""
    missing = missing_package()
    if missing is not None:
        print(f"note: self-calibration: {missing}; without it, K is a guess", flush=True)
        return None
    others = f" and {len(inputs) - 1} more of its size" if len(inputs) > 1 else ""
    print(
        f"self-calibration: the focal length from {inputs[0].path}{others} itself, by structure from motion (a minute "
        "or two; --no-self-calibration skips it)",
        flush=True,
    )
    result = self_calibrate(inputs, args.jobs, margins)
    if isinstance(result, str):
        print(f"note: self-calibration: {result}; K is a guess", flush=True)
        return None
    print(f"self-calibration: {result}", flush=True)
    return result.record


def claim(args: argparse.Namespace) -> FolderLock:
    """The output folder, with the options that all of its inputs share; a later run must have the same ones."""
    options = {
        "layout": "video",
        "fps": args.fps,
        "every": args.every,
        "from-colmap": args.from_colmap,
        "size": f"{args.width or 'default'} x {args.height or 'default'}",
        "crop": args.crop if isinstance(args.crop, str) else ",".join(map(str, args.crop)),
        "camera": describe_camera(args),
        "calibration-camera": args.calibration_camera,
        "calibration-sha256": sha256(args.calibration) if args.calibration else None,
        "static": args.static,
        "val-fraction": args.val_fraction,
        "val-gap": args.val_gap,
    }
    return claim_folder(args.prepared, options)


def sha256(file: Path) -> str:
    """The first digits of a file's hash, by which a change of its content shows."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def describe_camera(args: argparse.Namespace) -> str:
    """The flag that says where K comes from, for the options of the folder."""
    given = {"fov": args.fov, "focal": args.focal, "calibration": args.calibration and args.calibration.absolute()}
    default = "a guess" if args.no_self_calibration else "by the input"
    return next((f"{name} {value}" for name, value in given.items() if value is not None), default)


def make_jobs(
    args: argparse.Namespace, inputs: list[Input], views: list[tuple[View, dict[str, Any]]]
) -> tuple[list[VideoJob], list[str]]:
    """A job for each input that is not complete, and the names of all inputs."""
    records = read_records(args.prepared)
    names = choose_names(inputs, records)
    todo = [
        (name, source, view, camera)
        for name, source, (view, camera) in zip(names, inputs, views, strict=True)
        if name not in records or not is_complete(args.prepared, records[name], source)
    ]
    processes = min(args.jobs, max(1, len(todo)))
    threads = max(1, (os.cpu_count() or 1) // processes)
    size, borders = choose_size(args, inputs[0], views[0][0], records, threads)
    jobs = [
        VideoJob(
            name=name,
            source=source,
            root=args.prepared,
            view=view,
            width=size[0],
            height=size[1],
            auto_crop=args.crop == "auto",
            borders=borders if source is inputs[0] else None,
            camera=camera,
            fps=args.fps,
            leave_out_static=args.static == "images",
            val_fraction=args.val_fraction,
            val_gap=args.val_gap,
            threads=threads,
        )
        for name, source, view, camera in todo
    ]
    return jobs, names


def choose_size(
    args: argparse.Namespace, source: Input, view: View, records: dict[str, dict[str, Any]], threads: int
) -> tuple[tuple[int, int], Borders | None]:
    """(width, height) of all images, and the borders of the first input where they had to be found for it."""
    if args.width and args.height:
        return (args.width, args.height), None
    for record in records.values():
        width, height = record["size"]
        return (width, height), None
    if args.crop != "auto":
        return common_size(view, args.width, args.height), None
    print(f"looking for borders that are the same in all frames of {source.path}", flush=True)
    borders = find_borders(source, view, args.fps, threads)
    return common_size(make_view(view.calibration, borders.margins), args.width, args.height), borders


def report(root: Path, records: dict[str, dict[str, Any]], inputs: list[Input], fps: float) -> None:
    """Print what was made of each input, what was left out, and what a user should know."""
    rows = []
    for name, record in records.items():
        train, val = (
            sum(s["frames"] for s in record["scenes"] if s["list"] == file) for file in ("train.txt", "val.txt")
        )
        scenes = str(len(record["scenes"]))
        rows.append({"input": name, "of": record["input"], "scenes": scenes, "train": str(train), "val": str(val)})
    if rows:
        print(table(rows))
    for name, record in records.items():
        if record["left_out"]:
            print(f"{name}: left out {describe_left_out(record)}")
        if record["cuts"]:
            print(f"{name}: {record['cuts']} cuts")
        if record["crop"]:
            picture = root / f"crop_{name}.jpg"  # not there where no frame can be read
            print(f"{name}: {record['crop']}{f'; see {picture}' if picture.is_file() else ''}")
        elif record["still_borders"]:
            print(f"note: {name}: {record['still_borders']}, in the prepared images: --crop auto leaves it out")
        for problem in record["problems"][:3]:
            print(f"note: {name}: {problem}")
        if len(record["problems"]) > 3:
            print(f"note: {name}: {len(record['problems']) - 3} more problems in {root / 'inputs' / f'{name}.json'}")
    for source in inputs:
        for note in source.notes(fps):
            print(f"note: {source.path}: {note}")


if __name__ == "__main__":
    run_script(main)
