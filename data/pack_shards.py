"""Write a prepared data set as shards, for sets that are larger than a disk."""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli.flags import ArgumentParser, non_negative_int, positive_float, run_script
from cli.tables import report_data_check

from path import Path

from datasets.packing import pack
from datasets.preparation.check import check_data
from datasets.shards import INDEX_FILE
from datasets.snippets import SnippetDataset
from files.errors import InputError, UsageError
from files.lock import hold
from training.validation import open_validation

DESCRIPTION = """\
Write a prepared data set as shards: tar files and an index, which train.py reads from a folder or a URL.

  python data/pack_shards.py prepared/kitti packed/kitti
  rsync -a packed/kitti server:/var/www/                    (or any other copy)
  python train.py https://server/kitti --name my_run        (pip install -r requirements-shards.txt)

Each process of a training reads its own shards, a few at a time, and keeps them in memory while it needs them: about 32
shards in all, or one for each snippet of a step if those are more. Validation scenes are copied to a temporary folder.
docs/scaling.md says what shards cost."""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="prepared data set: train.txt, val.txt, SCENE/*.jpg, cam.txt")
    parser.add_argument("out", type=Path, help="folder of the shards; it is made")
    parser.add_argument(
        "--shard-size", type=positive_float, default=16, metavar="MB", help="size of a shard (default: 16)"
    )
    parser.add_argument(
        "--overlap",
        type=non_negative_int,
        default=4,
        metavar="FRAMES",
        help="frames that both shards hold where a scene is cut: one less than the longest snippet (default: 4)",
    )
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="check the data (data/check_data.py)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    root, out = Path(os.path.normpath(args.prepared)), args.out
    length = 3
    if args.overlap < length - 1:
        raise UsageError(f"--overlap {args.overlap}: expected {length - 1} or more, one less than the shortest snippet")
    training = SnippetDataset(root, "train.txt", length)
    validation = open_validation(root, length, (training.height, training.width))
    if args.check:
        report_data_check(check_data(root, length, most_pairs=200, all_headers=False))
    out.makedirs_p()
    with hold(out):
        if (out / INDEX_FILE).exists():
            raise InputError(f"{out}: holds a packed set already, expected a new folder")
        count = pack(training, validation, root, out, round(args.shard_size * 1e6), args.overlap)
    print(f"{out}: {len(training)} snippets of {length} frames in {count} shards; {INDEX_FILE} describes them")


if __name__ == "__main__":
    run_script(main)
