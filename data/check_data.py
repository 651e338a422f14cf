"""Check a prepared data set before training on it."""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli.flags import ArgumentParser, positive_int, run_script, snippet_length
from cli.tables import report_data_check

from path import Path

from datasets.preparation.check import check_data
from files.atomic import write_json
from files.outputs import check_outputs

DESCRIPTION = """\
Check a prepared data set before training on it.

  python data/check_data.py prepared/kitti

Prints a row for each scene of train.txt and val.txt: number of frames, number of frames that repeat the one before
them, size, K (fx fy cx cy), and, measured on a sample of its pairs of neighbouring frames, the share in which the
camera stands, the photometric error of the identity warp (mean difference, images in [-1, 1]), the motion in pixels,
the share of textured patches found again in the next frame, and the share of pairs that a rotation of the camera
explains. Then it prints the focal length that the motion in the images shows beside that of cam.txt, the problems, and
what to do about them. train.py runs the same check on a smaller sample before it starts. docs/data_check.md describes
the measurements.

Exit status: 0 if training may start (there may be warnings), 1 if the data set is refused."""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared data set: train.txt, val.txt, SCENE/*.jpg, cam.txt")
    parser.add_argument(
        "--pairs",
        type=positive_int,
        default=1000,
        help="pairs of neighbouring frames to compare, spread over all scenes, at least 4 each (default: 1000)",
    )
    length = "frames per snippet, an odd number from 3 on (default: 3)"
    parser.add_argument("--sequence-length", type=snippet_length, default=3, help=length)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    check_outputs({"--json": args.json}, [])  # no input has the form of a result
    start = time.perf_counter()
    result = check_data(args.data, args.sequence_length, args.pairs)
    seconds = time.perf_counter() - start
    if args.json:
        write_json(args.json, result.plain())
    report_data_check(result)
    verdict = "training may start, but see the warnings" if result.warnings else "no problem found"
    print(f"{seconds:.1f} s; {verdict}")


if __name__ == "__main__":
    run_script(main)
