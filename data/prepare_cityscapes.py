"""Prepare Cityscapes' video for train.py, without the car's bonnet.

    python data/prepare_cityscapes.py CITYSCAPES PREPARED

CITYSCAPES holds leftImg8bit_sequence/ (from leftImg8bit_sequence_trainvaltest.zip, 324 GB) and camera/ (from
camera_trainvaltest.zip), unpacked. --static speed also needs vehicle_sequence/.

Cityscapes has 17 frames a second and KITTI 10, so every second frame is taken. The frames between make a second scene.
PREPARED gets two scenes for each sequence of 30 frames: the upper three quarters of the images, resized by area
averaging (0000000.jpg), and the camera matrix of these images (cam.txt). It also gets train.txt and val.txt. No snippet
crosses the end of a sequence. After a stop the same command goes on. Run again, it makes only what is new.
docs/preparation.md has the details.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # --jobs says how many processes run, each with one thread

from cli.flags import ArgumentParser, fraction, non_negative_float, positive_int, run_script

from path import Path

from datasets.formats.cityscapes import SPLITS, Sequence, find_sequences, read_camera
from datasets.preparation.cityscapes import CityscapesScene
from datasets.preparation.jobs import claim_folder, prepare_scenes, report, write_lists
from files.errors import InputError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("cityscapes", type=Path, help="folder with leftImg8bit_sequence/ and camera/, as downloaded and unpacked")
    add("prepared", type=Path, help="folder to write: new, empty, or begun with the same options")
    add("--splits", nargs="+", choices=SPLITS, default=["train"], help="Cityscapes' splits to prepare (default: train)")
    add("--height", type=positive_int, default=128, help="height of the prepared images (default: %(default)s)")
    add(
        "--width",
        type=positive_int,
        default=416,
        help="width of the prepared images, whatever the aspect (default: %(default)s)",
    )
    add(
        "--keep",
        type=_share,
        default=0.75,
        metavar="SHARE",
        help="share of the height that is kept, from the top; the rest shows the car's bonnet (default: %(default)s, "
        "as in the paper's code; monodepth keeps 0.8)",
    )
    add("--every", type=positive_int, default=2, metavar="N", help="take every N-th frame (default: %(default)s)")
    add(
        "--static",
        choices=("none", "speed", "images"),
        default="images",
        help="leave out frames in which the camera stands: by the images alone, or by the speed in the vehicle files; "
        "the paper's code leaves out none (default: %(default)s)",
    )
    add(
        "--min-speed",
        type=non_negative_float,
        default=0.5,
        metavar="M/S",
        help="with --static speed: the car stands below this speed (default: %(default)s)",
    )
    add(
        "--val-fraction",
        type=fraction,
        default=0.1,
        help="share of the cities for validation, at least one; with a single city, share of its sequences (default: "
        "%(default)s)",
    )
    add("--seed", type=int, default=0, help="seed for choosing validation (default: %(default)s)")
    add("--jobs", type=positive_int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    return parser.parse_args(arguments)


def _share(text: str) -> float:
    share = non_negative_float(text)
    if not 0.1 <= share <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share from 0.1 to 1")
    return share


def main() -> None:
    args = parse_arguments()
    sequences, surplus = find_sequences(args.cityscapes, tuple(dict.fromkeys(args.splits)))
    if args.static == "speed" and not any(sequence.vehicle_files for sequence in sequences):
        raise InputError(
            f"{args.cityscapes}: --static speed needs vehicle_sequence/, the vehicle files of all frames (vehicle/ has "
            "one frame in thirty); --static images needs none"
        )
    jobs = make_jobs(args, sequences)  # raises for a damaged camera file, before anything is written
    with claim_folder(args.prepared, chosen_options(args)):
        if surplus:
            print(f"note: {surplus} images belong to no sequence: no camera file at most 19 frames later or 10 earlier")
        todo = [job for job in jobs if not job.is_complete()]
        if todo:
            prepare_scenes(todo, args.jobs)
        records = {job.scene: job.read_record() or {} for job in jobs}
        groups = "cities" if len({sequence.city for sequence in sequences}) > 1 else "sequences"
        write_lists(args.prepared, jobs, records, args.val_fraction, args.seed, groups)
        report(args.prepared, jobs, records, len(todo))


def chosen_options(args: argparse.Namespace) -> dict:
    """The options that all frames of a prepared folder share; a later run must have the same ones."""
    return {
        "layout": "cityscapes",
        "size": f"{args.width} x {args.height}",
        "keep": args.keep,
        "every": args.every,
        "static": f"speed below {args.min_speed:g} m/s" if args.static == "speed" else args.static,
    }


def make_jobs(args: argparse.Namespace, sequences: list[Sequence]) -> list[CityscapesScene]:
    """The jobs of each sequence: one for each phase, counted from its first frame (0 and 1 with --every 2)."""
    one_city = len({sequence.city for sequence in sequences}) == 1
    jobs = []
    for sequence in sequences:
        camera = read_camera(sequence.camera_file)
        for phase in range(args.every):
            images = {f: file for f, file in sequence.images.items() if (f - sequence.first) % args.every == phase}
            if images:
                scene = f"{sequence.name}_{phase}"
                jobs.append(
                    CityscapesScene(
                        scene=scene,
                        group=sequence.name if one_city else sequence.city,
                        folder=args.prepared / scene,
                        images=images,
                        height=args.height,
                        width=args.width,
                        static=args.static,
                        sequence=sequence,
                        camera=camera,
                        every=args.every,
                        keep=args.keep,
                        min_speed=args.min_speed,
                    )
                )
    return jobs


if __name__ == "__main__":
    run_script(main)
