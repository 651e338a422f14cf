"""Turn Cityscapes' video into the layout that train.py reads, the bonnet cropped off.

    python data/prepare_cityscapes.py CITYSCAPES PREPARED

CITYSCAPES holds leftImg8bit_sequence/ (from leftImg8bit_sequence_trainvaltest.zip, 324 GB) and camera/ (from
camera_trainvaltest.zip), unpacked; vehicle_sequence/ only for --static speed.

Every second frame is taken, since KITTI has 10 frames a second and Cityscapes 17; the frames between become a scene of
their own. PREPARED gets two scenes for each sequence of 30 frames: the upper three quarters of the images, resized true
to area (0000000.jpg), the camera matrix of these images (cam.txt); and train.txt and val.txt. No snippet crosses the
end of a sequence. Stopped half way, the same command goes on; run again, it does only what is new.
docs/preparation.md tells more.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # --jobs says how many processes run, each with one thread

from path import Path

from cli.flags import fraction, non_negative_float, positive_int, run_script
from datasets.formats.cityscapes import SPLITS, CityscapesScene, Sequence, find_sequences, read_camera
from datasets.preparation.jobs import claim_folder, prepare_scenes, report, write_lists
from files.errors import InputError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("cityscapes", type=Path, help="folder with leftImg8bit_sequence/ and camera/, as downloaded and unpacked")
    add("prepared", type=Path, help="folder to write: a new or empty one, or one begun with the same options")
    add("--splits", nargs="+", choices=SPLITS, default=["train"], help="Cityscapes' own (default: train)")
    add("--height", type=positive_int, default=128, help="of the prepared images (default: %(default)s)")
    add("--width", type=positive_int, default=416, help="the aspect isn't kept (default: %(default)s)")
    add(
        "--keep",
        type=_share,
        default=0.75,
        metavar="SHARE",
        help="of the height that is kept, from the top; below is the car's bonnet (default: %(default)s, as in the "
        "paper's code; monodepth keeps 0.8)",
    )
    add("--every", type=positive_int, default=2, metavar="N", help="take every N-th frame (default: %(default)s)")
    add(
        "--static",
        choices=("none", "speed", "images"),
        default="images",
        help="leave out frames in which the camera stands: by the images alone, or by the speed in the vehicle files; "
        "the paper's code takes all (default: %(default)s)",
    )
    add(
        "--min-speed",
        type=non_negative_float,
        default=0.5,
        metavar="M/S",
        help="with --static speed: slower is standing (default: %(default)s)",
    )
    add(
        "--val-fraction",
        type=fraction,
        default=0.1,
        help="share of the cities for validation, at least one; of the sequences, where there is one city (default: "
        "%(default)s)",
    )
    add("--seed", type=int, default=0, help="of the choice for validation (default: %(default)s)")
    add("--jobs", type=positive_int, default=os.cpu_count() or 1, help="processes (default: the cores, %(default)s)")
    return parser.parse_args(arguments)


def _share(text: str) -> float:
    share = non_negative_float(text)
    if not 0.1 <= share <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share from 0.1 to 1")
    return share


def main() -> None:
    args = parse_arguments()
    sequences, without = find_sequences(args.cityscapes, tuple(dict.fromkeys(args.splits)))
    if args.static == "speed" and not any(sequence.vehicle_files for sequence in sequences):
        raise InputError(
            f"{args.cityscapes}: --static speed needs vehicle_sequence/, the vehicle files of all frames (vehicle/ has "
            "one frame in thirty); --static images needs none"
        )
    jobs = make_jobs(args, sequences)  # a missing or damaged camera file ends it here, before anything is written
    with claim_folder(args.prepared, chosen_options(args)):
        if without:
            print(
                f"note: {without} images belong to no sequence (no camera file within 19 frames behind, 10 before them)"
            )
        todo = [job for job in jobs if not job.is_complete()]
        if todo:
            prepare_scenes(todo, args.jobs)
        records = {job.scene: job.read_record() or {} for job in jobs}
        groups = "cities" if len({sequence.city for sequence in sequences}) > 1 else "sequences"
        write_lists(args.prepared, jobs, records, args.val_fraction, args.seed, groups)
        report(args.prepared, jobs, records, len(todo))


def chosen_options(args: argparse.Namespace) -> dict:
    """The options that every frame of one prepared folder must share."""
    return {
        "layout": "cityscapes",
        "size": f"{args.width} x {args.height}",
        "keep": args.keep,
        "every": args.every,
        "static": f"speed below {args.min_speed:g} m/s" if args.static == "speed" else args.static,
    }


def make_jobs(args: argparse.Namespace, sequences: list[Sequence]) -> list[CityscapesScene]:
    """The scenes of each sequence: with every second frame, one of the even and one of the odd ones."""
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
